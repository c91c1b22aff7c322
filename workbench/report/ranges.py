"""The NVTX ranges of a capture, for the page and the terminal."""

from __future__ import annotations

from typing import Final, NamedTuple

import pandas as pd

from workbench.analysis.range_times import range_times
from workbench.analysis.tables import rows_of
from workbench.diagnosis.passes import detailed_pass
from workbench.figures.theme import shorten
from workbench.figures.units import format_ns, format_percent
from workbench.report.tables import Row
from workbench.runs.imports.calls import shown
from workbench.runs.reader import RunFolder

MOST_RANGES: Final = 25
_MARK: Final = "mark"  # of a moment, so that nothing is launched in it
_NAME_LENGTH: Final = 90
_SUMS: Final = ["count", "wall_ns", "kernels", "device_ns"]


class RangeTimes(NamedTuple):
    """The ranges of a pass: `workbench.analysis.range_times.range_times` without names whose ranges have no length."""

    times: pd.DataFrame
    pass_name: str


class RangeRows(NamedTuple):
    """The longest ranges, and the sums of what is left: other ranges, kernels in none. of: what the table is over."""

    longest: list[Row]
    rest: list[Row]
    of: str


def nvtx_times(run: RunFolder) -> RangeTimes | None:
    """What the NVTX ranges of a run hold; None where there are none beside those that mark the calls.

    The ranges that the recorder logs itself are no NVTX ranges here: they only mark phases and calls.
    """
    pass_name = detailed_pass(run.manifest)
    if pass_name is None:
        return None
    ranges = rows_of(run, "ranges", pass_name, ("kind", "name"))
    names = ranges.loc[ranges["kind"].notna() & (ranges["kind"] != _MARK), "name"].unique()
    marked_by = "" if run.manifest.imported is None else run.manifest.imported.calls_marked_by
    if all(pd.notna(name) and marked_by.endswith(shown(str(name))) for name in names):
        return None
    times = range_times(run, pass_name)
    return RangeTimes(times[(times["wall_ns"] > 0) | (times["kernels"] > 0)], pass_name)


def range_rows(ranges: RangeTimes) -> RangeRows:
    """The longest ranges by name, then a row for the other names and one for kernels in no range."""
    times = ranges.times
    named, in_none = times[times["name"].notna()], times[times["name"].isna()]
    total = int(times["device_ns"].sum())
    others = named.iloc[MOST_RANGES:]
    longest = [
        _row(shorten(name, _NAME_LENGTH), [*values], total)
        for name, *values in named.head(MOST_RANGES)[["name", *_SUMS]].itertuples(index=False)
    ]
    rest = []
    if len(others):
        rest.append(_row(f"{len(others):,} other names", others[_SUMS].sum().tolist(), total))
    if len(in_none):
        rest.append(_row("in no range", [None, None, *in_none[_SUMS[2:]].iloc[0].tolist()], total))
    return RangeRows(longest, rest, f"all that the {ranges.pass_name} pass recorded")


def _row(name: str, sums: list[int | None], total_ns: int) -> Row:
    count, wall_ns, kernels, device_ns = sums
    share = device_ns / total_ns if device_ns is not None and total_ns else None
    return Row(
        [
            name,
            "" if count is None else f"{count:,}",
            "" if wall_ns is None else format_ns(wall_ns),
            f"{kernels:,}",
            format_ns(device_ns),
            format_percent(share),
        ]
    )
