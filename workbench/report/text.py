"""The verdict for a terminal: at most 25 lines of plain text."""

from __future__ import annotations

from typing import Final

from workbench.diagnosis.findings import findings
from workbench.diagnosis.result import Diagnosis
from workbench.figures.units import format_ns, format_percent
from workbench.report import facts
from workbench.report.findings import finding_lines
from workbench.report.ranges import nvtx_times
from workbench.report.redact import without_folders
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder

MOST_LINES: Final = 25
_BAR: Final = 30
_NODES: Final = 5
_RANGES: Final = 5
_WIDTH: Final = 118


def summary(run: RunFolder, diagnosis: Diagnosis) -> str:
    """Headline, shares, the longest nodes or else ranges, what was missing, notes."""
    manifest = run.manifest
    card = facts.card(diagnosis, manifest)
    lines = [facts.headline(diagnosis, manifest)]
    if card.sub_cause:
        lines.append(f"  {card.sub_cause}")
    lines += [f"  {card.reason}", f"  {card.confidence}", ""]
    lines += _share_lines(diagnosis, manifest)
    lines += _node_lines(diagnosis) or _range_lines(run)
    lines += finding_lines(findings(run, diagnosis), diagnosis.latency.median_ns)
    said = [f"missing: {without_folders(text)}" for text in diagnosis.missing]
    said += [f"note: {text}" for text in facts.notes(diagnosis)]
    room = MOST_LINES - len(lines) - 1
    if said and room > 0:
        shown = said if len(said) <= room else [*said[: room - 1], f"… and {len(said) - room + 1} more in the report"]
        lines += ["", *shown]
    return "\n".join(_plain(line) for line in lines)


def _share_lines(diagnosis: Diagnosis, manifest: Manifest) -> list[str]:
    shares = facts.shares(diagnosis, manifest.device.kind)
    width = max(len(share.name) for share in shares)
    lines = []
    for share in shares:
        if share.fraction is None:
            lines.append(f"  {share.name:<{width}}  {share.percent}")
            continue
        bar = "█" * round(_BAR * share.fraction)
        time = format_ns(share.fraction * diagnosis.latency.median_ns)
        lines.append(f"  {share.name:<{width}}  {bar:<{_BAR}}  {share.percent:>8}  {time:>8}")
    return lines


def _node_lines(diagnosis: Diagnosis) -> list[str]:
    nodes = diagnosis.nodes.nodes if diagnosis.nodes is not None else None
    if nodes is None or not nodes["time_ns"].sum():
        return []
    total = float(nodes["time_ns"].sum())
    lines = ["", f"Longest nodes, of {len(nodes)}:"]
    for node in nodes.head(_NODES).to_dict("records"):
        share = format_percent(node["time_ns"] / total)
        name = _shortened(f"{node['name']} ({node['op_type']})")
        lines.append(f"  {format_ns(node['time_ns']):>8}  {share:>7}  {node['limit']:<12}  {name}")
    return lines


def _range_lines(run: RunFolder) -> list[str]:
    ranges = nvtx_times(run)
    if ranges is None:
        return []
    named = ranges.times[ranges.times["name"].notna()]
    total = int(ranges.times["device_ns"].sum())
    if not named["device_ns"].any():
        return []
    lines = ["", f"Longest ranges, of {len(named):,} (kernel time in all):"]
    for name, device_ns in (
        named.loc[named["device_ns"] > 0, ["name", "device_ns"]].head(_RANGES).itertuples(index=False)
    ):
        lines.append(f"  {format_ns(device_ns):>8}  {format_percent(device_ns / total):>7}  {_shortened(name)}")
    return lines


def _shortened(text: str, width: int = 70) -> str:
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-width // 2 :]}"


def _plain(line: str) -> str:
    """One line of printable characters: names come from others and may hold terminal commands."""
    clean = "".join(character if character.isprintable() else "�" for character in line)
    return clean if len(clean) <= _WIDTH else f"{clean[: _WIDTH - 1]}…"
