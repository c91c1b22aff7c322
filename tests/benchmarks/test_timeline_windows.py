"""How quick any window of a timeline of ten million intervals is, against a plain filter and groupby in pandas."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from workbench.analysis.level_cache import load_levels, save_levels
from workbench.analysis.levels import MOST_MARKS, Levels, Rows, build_levels

SEED = 20_26
EPOCH_NS = 1_795_269_703_196_520_787
PIXELS = 1280
WINDOWS = 300
BASELINE_WINDOWS = 30
NAMES = [f"void some::library::kernel<float, {tile}, {stage}>" for tile in range(60) for stage in range(5)]
CLASSES = (None, "launch", "sync", "pcie")

#        intervals, mean length and gap in ns, names in use, whether every second one is called by the one before
LANES = {
    "host calls": (4_000_000, 2_500, 500, 12, True),
    "kernels, stream 7": (2_500_000, 3_000, 2_000, 300, False),
    "kernels, stream 13": (2_500_000, 3_000, 2_000, 300, False),
    "copies to device": (1_000_000, 9_000, 90_000, 2, False),
}


def lane(label: str, count: int, length_ns: int, gap_ns: int, names: int, nested: bool) -> Rows:
    """Intervals like those of a busy capture, on one clock: short, with gaps, few names of which some are frequent."""
    random = np.random.default_rng([SEED, count, names, len(label)])
    lengths = random.exponential(length_ns, count).astype(np.int64) + 1
    ends = EPOCH_NS + np.cumsum(lengths + random.exponential(gap_ns, count).astype(np.int64))
    starts = ends - lengths
    if nested:
        starts[1::2], ends[1::2] = starts[::2] + lengths[::2] // 4, ends[::2] - lengths[::2] // 4
    codes = (random.zipf(1.3, count) % names).astype(np.int32)
    return Rows(label, label, starts, ends, codes, random.integers(0, len(CLASSES), count).astype(np.int32))


def windows(levels: Levels) -> list[tuple[int, int]]:
    """Windows from 1 µs to everything, as many at each zoom, anywhere."""
    random = np.random.default_rng(SEED)
    whole = levels.end_ns - levels.start_ns
    lengths = np.exp(random.uniform(np.log(1000), np.log(whole), WINDOWS)).astype(np.int64)
    starts = levels.start_ns + (random.uniform(size=WINDOWS) * (whole - lengths)).astype(np.int64)
    return [*zip(starts.tolist(), (starts + lengths).tolist(), strict=True), (levels.start_ns, levels.end_ns)]


def plain(table: pd.DataFrame, start: int, end: int) -> pd.DataFrame:
    """What a notebook does: filter the window, group by lane and pixel; time by name would come on top."""
    inside = table[(table["start"] < end) & (table["end"] > start)]
    pixel = (inside["start"].clip(lower=start) - start) // max((end - start) // PIXELS, 1)
    lengths = inside["end"].clip(upper=end) - inside["start"].clip(lower=start)
    return lengths.groupby([inside["lane"], pixel]).agg(["size", "sum"])


def seconds(asked: list[tuple[int, int]], answer) -> np.ndarray:
    """How long each window takes."""
    taken = []
    for start, end in asked:
        began = perf_counter()
        answer(start, end)
        taken.append(perf_counter() - began)
    return np.array(taken)


def test_any_window_is_quicker_than_to_filter_and_group(tmp_path: Path) -> None:
    rows = [lane(label, *shape) for label, shape in LANES.items()]
    table = pd.DataFrame(
        {
            "lane": np.repeat(np.arange(len(rows), dtype=np.int8), [len(each.starts) for each in rows]),
            "start": np.concatenate([each.starts for each in rows]),
            "end": np.concatenate([each.ends for each in rows]),
        }
    )
    count = len(table)

    began = perf_counter()
    built = build_levels(rows, NAMES, CLASSES)
    build_s = perf_counter() - began
    asked = windows(built)
    expected = [built.window(*window, PIXELS) for window in asked[::30]]

    began = perf_counter()
    save_levels(built, file := tmp_path / "derived" / "levels.bin")
    save_s = perf_counter() - began
    del built, rows
    began = perf_counter()
    levels = load_levels(file)
    load_s = perf_counter() - began
    assert levels is not None

    marks: list[int] = []
    taken = seconds(asked, lambda start, end: marks.append(len(levels.window(start, end, PIXELS))))
    baseline = seconds(asked[:: len(asked) // BASELINE_WINDOWS], lambda start, end: plain(table, start, end))
    p95, plain_p95 = np.percentile(taken, 95), np.percentile(baseline, 95)
    print(
        f"\n{count:,} intervals: build {build_s:.2f} s ({build_s / plain_p95:.1f} times a slow plain window), "
        f"save {save_s:.2f} s, {file.stat().st_size / count:.1f} bytes an interval, open {load_s:.2f} s\n"
        f"{len(asked)} windows: median {np.median(taken) * 1e3:.2f} ms, 95th percentile {p95 * 1e3:.2f} ms, "
        f"slowest {taken.max() * 1e3:.2f} ms, at most {max(marks):,} marks\n"
        f"plain filter and groupby: 95th percentile {plain_p95 * 1e3:.0f} ms, {plain_p95 / p95:.0f} times as long"
    )
    assert max(marks) <= MOST_MARKS
    for window, answer in zip(asked[::30], expected, strict=True):
        pd.testing.assert_frame_equal(levels.window(*window, PIXELS), answer)
    assert p95 < plain_p95 / 3
    assert load_s < build_s
