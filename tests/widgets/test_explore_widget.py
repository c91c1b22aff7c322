"""The explorer without a browser: what is picked, found, zoomed to and compared, against the tables of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

pytest.importorskip("anywidget")

from workbench.analysis.device_work import call_times
from workbench.api import Run, load
from workbench.api.widgets import explore
from workbench.diagnosis.shares import CLASSES
from workbench.errors import ConfigError
from workbench.runs.writer import to_table
from workbench.widgets import base
from workbench.widgets.explore import Explorer
from workbench.widgets.explore_find import Choice, matcher
from workbench.widgets.explore_pair import PairExplorer
from workbench.widgets.explore_summary import gap_scale, window_shares
from workbench.widgets.explore_trace import traced

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def explorer(recorded: Callable[[str], Run]) -> Explorer:
    return Explorer(recorded("resnet50_b1_numpy"))


@pytest.fixture
def copied(h200: Path, tmp_path: Path) -> Callable[..., Path]:
    """A recorded run as a folder of its own, without some tables, its manifest changed."""

    def made(name: str, *without: str, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> Path:
        folder = tmp_path / name
        shutil.copytree(h200 / name, folder, ignore=shutil.ignore_patterns("derived"))
        for table in without:
            (folder / f"{table}.parquet").unlink(missing_ok=True)
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return made


def picked(explorer: Explorer, **mark: Any) -> None:
    explorer.timeline._answer(None, {"type": "pick", **mark}, [])


def lane(explorer: Explorer, label: str) -> int:
    return [each["label"] for each in explorer.timeline.lanes].index(label)


def test_it_opens_on_the_measured_calls_with_their_sums(explorer: Explorer) -> None:
    start, end = explorer.timeline.view_ns
    assert explorer.shown.trace is not None
    times = explorer.shown.trace.times(start, end)
    assert times.work_ns == call_times(explorer.run, "nodes")["work_ns"].sum()
    assert explorer.nodes.frame["time_ns"].sum() <= times.work_ns
    assert explorer.nodes.total == len(explorer.run.diagnosis.nodes.nodes)


def test_zooming_recomputes_tables_and_summary(explorer: Explorer) -> None:
    before, summary = explorer.nodes.frame["time_ns"].sum(), explorer.summary.value
    start, end = explorer.shown.call_ns(12) or (0, 1)
    explorer.timeline.look(start, end)
    assert explorer.nodes.frame["time_ns"].sum() < before
    assert explorer.nodes.frame["executions"].max() == 1
    assert explorer.summary.value != summary
    assert "1 call" in explorer.summary.value


def test_a_node_picked_in_the_timeline_is_marked_everywhere(explorer: Explorer) -> None:
    trace = explorer.shown.trace
    assert trace is not None
    node = int(explorer.nodes.frame["node"].iloc[3])
    work = np.flatnonzero(trace.pieces.node == node)[-1]
    origin = explorer.timeline.source.levels.origin_ns
    edges = {"start": float(trace.pieces.starts[work] - origin), "end": float(trace.pieces.ends[work] - origin)}
    picked(explorer, lane=lane(explorer, "kernels"), name="any", single=True, **edges)
    assert explorer.choice == Choice(node=node)
    assert (explorer.nodes.selected, explorer.nodes.selected_at) == (node, 3)
    assert explorer.kernels.selected is not None
    assert explorer.timeline.selecting
    explorer.timeline._answer(None, {"type": "unpick"}, [])
    assert explorer.choice == Choice()
    assert explorer.nodes.selected is None
    assert not explorer.timeline.selecting


def test_a_node_picked_in_the_table_lights_its_marks_alone(explorer: Explorer) -> None:
    explorer.nodes._answer(None, {"type": "step", "by": 1}, [])
    name = explorer.nodes.frame["name"].iloc[0]
    source, levels = explorer.timeline.source, explorer.timeline.source.levels
    found = source.columns(*explorer.timeline.view_ns, 100_000, explorer.timeline._lit)
    lanes, codes = np.frombuffer(found.buffers[2], "<u2"), np.frombuffer(found.buffers[3], "<i4")
    flags = np.frombuffer(found.buffers[7], "<u1")
    nodes = lanes == [each.label for each in levels.lanes].index("nodes")
    single = nodes & (flags & 2 > 0)
    assert single.sum() > 100
    assert {found.names[code] for code in codes[single & (flags & 1 > 0)]} == {name}
    assert [flag & 1 for flag in flags[single]].count(1) == list(codes[single]).count(found.names.index(name))


def test_the_roofline_marks_and_is_clicked(explorer: Explorer) -> None:
    explorer.tabs.selected_index = 2
    roofline = explorer.tabs.children[2].children[0]
    at, rows = next((at, rows) for at, rows in enumerate(roofline._rows) if rows)
    roofline._clicked(at, type("Points", (), {"point_inds": [0]}), lambda node: explorer.choose(Choice(node=node)))
    assert explorer.nodes.selected == rows[0]
    drawn = roofline._figure.data[at]
    assert drawn.selectedpoints == (0,)
    assert explorer.shown.trace is not None
    nodes = explorer.run.diagnosis.nodes.nodes.set_index("name")
    assert drawn.y[0] == nodes.loc[explorer.shown.trace.nodes["name"].iloc[rows[0]], "flops_per_s"]


def test_a_filter_keeps_what_matches_by_text_or_expression(explorer: Explorer) -> None:
    explorer.filter.value = "conv"
    assert 0 < explorer.nodes.total < len(explorer.run.diagnosis.nodes.nodes)
    assert explorer.nodes.frame["op_type"].str.contains("Conv").all()
    explorer.filter.value = "^n1[0-3]$"
    assert explorer.nodes.total == 0
    explorer.regular.value = True
    assert set(explorer.nodes.frame["name"]) == {"n10", "n11", "n12", "n13"} & set(explorer.run.nodes["name"])
    kept = explorer.nodes.total
    explorer.filter.value = "(["
    assert "no regular expression" in explorer.message.value
    assert explorer.nodes.total == kept
    explorer.filter.value = ""
    assert explorer.nodes.total == len(explorer.run.diagnosis.nodes.nodes)
    assert not explorer.timeline.selecting


def test_words_are_found_in_any_case_and_expressions_are_not_words() -> None:
    assert matcher("ReLU", regular=False)("/block/relu_1")
    assert not matcher("a.c", regular=False)("abc")
    assert matcher("a.c", regular=True)("xABCx")


def test_it_jumps_to_a_call_the_longest_gaps_and_the_findings(explorer: Explorer) -> None:
    explorer.call.value = 11
    start, end = explorer.shown.call_ns(11) or (0, 0)
    assert explorer.timeline.view_ns[0] <= start < end <= explorer.timeline.view_ns[1]
    assert explorer.shown.trace is not None
    longest = explorer.shown.trace.longest_gaps(*explorer.shown.measured_ns, 2)
    for at in (0, 1):
        explorer.show_longest_gap()
        assert explorer.timeline.view_ns[0] < longest["start_ns"].iloc[at] < explorer.timeline.view_ns[1]
    for finding in explorer.findings:
        explorer.show_next_finding()
        assert base.text(finding.said) in explorer.message.value
        named = [finding.evidence[column].iloc[0] for column in ("name", "longest_node") if column in finding.evidence]
        if named and explorer.choice.node is not None:
            assert explorer.shown.trace.nodes["name"].iloc[explorer.choice.node] == named[0]


def test_another_pass_has_its_own_calls(explorer: Explorer) -> None:
    explorer.passes.value = "activity"
    assert explorer.shown.pass_name == "activity"
    assert explorer.nodes.total == 0
    assert explorer.kernels.total > 0
    assert "nodes" not in [each["label"] for each in explorer.timeline.lanes]


@pytest.mark.parametrize("name", ["launch_numpy", "compute_device", "pcie_pinned", "resnet50_b64_device"])
def test_shares_of_all_measured_calls_are_those_of_the_verdict(recorded: Callable[[str], Run], name: str) -> None:
    run = recorded(name)
    shown = traced(run, "nodes")
    assert shown.trace is not None
    times = shown.trace.times(*shown.measured_ns)
    shares = window_shares(times, gap_scale(shown, run.diagnosis), "cuda")
    assert shares is not None
    assert sum(share or 0 for share in shares.values()) == pytest.approx(1)
    for each in CLASSES:  # a window has sums where the verdict has medians
        assert shares[each] == pytest.approx(run.diagnosis.shares[each], abs=0.03)


def test_two_runs_move_together_and_compare_the_same_call(recorded: Callable[[str], Run]) -> None:
    runs = [recorded(name) for name in ("resnet50_b1_numpy", "resnet50_b1_device")]
    pair = explore(*runs)
    assert isinstance(pair, PairExplorer)
    pair.call.value = 1
    first, second = (side.timeline.view_ns[0] - side.nth(1)[0] for side in pair.sides)
    assert first == second
    start = pair.sides[1].nth(1)[0]
    pair.sides[1].timeline.look(start + 1_000, start + 501_000)
    assert pair.sides[0].timeline.view_ns[0] == pair.sides[0].nth(1)[0] + 1_000
    row = pair.table.frame.iloc[0]
    for side, column in zip(pair.sides, ("first_ns", "second_ns"), strict=True):
        table = side.shown.trace.node_table(*side.nth(1)).set_index("name")
        assert table.loc[row["name"], "time_ns"] == row[column]
    assert row["longer_ns"] == row["second_ns"] - row["first_ns"]
    pair.choose(row["name"])
    assert all(side.timeline.selecting for side in pair.sides)
    assert pair.table.selected == row["row"]


def test_a_run_without_activity_shows_its_calls_and_says_what_is_missing(copied: Callable[..., Path]) -> None:
    tables = ("nodes", "kernels", "copies", "memsets", "launches", "syncs", "graphs", "session_events")

    def drop(manifest: dict[str, Any]) -> None:
        for name in ("nodes", "activity"):
            manifest["passes"].pop(name)

    explorer = explore(copied("launch_numpy", *tables, change=drop))
    assert explorer.shown.pass_name == "latency"
    assert [each["label"] for each in explorer.timeline.lanes] == ["calls"]
    assert "profile again" in explorer.summary.value
    for tab in range(6):
        explorer.tabs.selected_index = tab
    explorer.show_longest_gap()
    assert "No gap is known" in explorer.message.value
    explorer.filter.value = "x"


def test_an_incomplete_run_says_so(copied: Callable[..., Path]) -> None:
    def broken(manifest: dict[str, Any]) -> None:
        manifest["complete"] = False
        manifest["latency"] = None

    explorer = explore(copied("launch_numpy", change=broken))
    assert "no latency" in explorer.children[0].value
    assert explorer.nodes.total > 0


def test_a_run_of_one_call(copied: Callable[..., Path]) -> None:
    folder = copied("compute_device")
    latency = pq.read_table(folder / "latency.parquet").to_pandas()
    last = latency.groupby("pass", observed=True)["call"].transform("max")
    latency.loc[latency["call"] != last, "phase"] = "warm-up"
    pq.write_table(to_table("latency", latency.to_dict("series")), folder / "latency.parquet")
    explorer = explore(folder)
    assert "inside 1 call" in explorer.summary.value
    assert explorer.nodes.total == 8


def test_names_of_others_are_text(copied: Callable[..., Path]) -> None:
    def hostile(manifest: dict[str, Any]) -> None:
        manifest["model"]["name"] = HOSTILE

    card = explore(copied("compute_device", change=hostile)).children[0].value
    assert "<script" not in card
    assert "&lt;script" in card


def test_twenty_thousand_nodes_are_sent_a_screen_at_a_time(copied: Callable[..., Path]) -> None:
    folder = copied("launch_numpy")
    nodes = load(folder).nodes
    first = nodes[nodes["call"] == nodes["call"].max()]
    many = first.loc[first.index.repeat(20_000 // len(first) + 1)].reset_index(drop=True)
    many["node_index"] = np.arange(len(many))
    many["name"] = pd.Categorical([f"node {at}" for at in range(len(many))])
    pq.write_table(to_table("nodes", many.to_dict("series")), folder / "nodes.parquet")
    explorer = explore(folder)
    assert explorer.nodes.total == len(many) > 20_000
    sent: list[dict[str, Any]] = []
    explorer.nodes.send = lambda content, buffers=None: sent.append(content)
    explorer.nodes._answer(None, {"type": "rows", "id": 1, "start": 12_000, "stop": 30_000}, [])
    assert len(sent[0]["rows"]) == 400
    explorer.filter.value = "node 19999"
    assert explorer.nodes.total == 1


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run `pip install 'ort-workbench\[lab\]'`\.$"):
        explore("compute")
