"""The pages of tuning say what the records and blocks hold, claim no more, and obey no name in them."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from workbench.api import Tuning
from workbench.config import RunConfig
from workbench.diagnosis.levers import levers
from workbench.errors import RunFolderError
from workbench.figures.sweep import sweep_map
from workbench.report import arms, tuned_rows
from workbench.report.options import as_yaml, changed
from workbench.report.tuned_html import (
    render_search_page,
    render_sweep_page,
    render_tuning_page,
    write_tuning_page,
)
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import NO_DIFFERENCE
from workbench.tuning.experiment import DOES_NOT_APPLY, Experiment
from workbench.tuning.metric import cold_start, latency
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.record import TuningRecord
from workbench.tuning.sweep import Best, Cell, CellError, Sweep, sweep
from workbench.tuning.trials import SearchResult, Trial

HOSTILE = "</pre></script><script>alert(1)</script>"
NAMES = ["compute", "decoder", "launch", "memory", "pcie", "resnet50-b1"]
LARGEST_BYTES = 3_000_000


@dataclass
class Fake:
    """A tuning whose record or blocks were changed after it was recorded."""

    record: TuningRecord
    blocks: Sequence[Block]
    base: RunFolder

    def run(self, arm: str = BASE) -> RunFolder:
        return self.base


@pytest.fixture(scope="module")
def tuning(h200_experiments: Path) -> Callable[[str], Tuning]:
    return lambda name: Tuning(h200_experiments / name)


@pytest.fixture(scope="module")
def resnet50(tuning: Callable[[str], Tuning]) -> Tuning:
    return tuning("resnet50-b1")


@pytest.fixture(scope="module")
def page(resnet50: Tuning) -> str:
    return render_tuning_page(resnet50)


@pytest.fixture(scope="module")
def pages(tuning: Callable[[str], Tuning], page: str) -> Callable[[str], str]:
    """The page of each recorded tuning."""
    return lambda name: page if name == "resnet50-b1" else render_tuning_page(tuning(name))


def fake(tuning: Tuning, blocks: Sequence[Block] | None = None, **changes: Any) -> Fake:
    return Fake(replace(tuning.record, **changes), tuning.blocks if blocks is None else blocks, tuning.run())


def text_of(page: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def figures_of(page: str) -> dict[str, Any]:
    packed = re.search(r'id="figures">([^<]+)<', page)
    assert packed
    return dict(json.loads(gzip.decompress(base64.b64decode(packed[1]))))


def pre_of(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, flags=re.DOTALL)]


# experiments


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_every_recorded_tuning_is_small_and_offline(pages: Callable[[str], str], name: str) -> None:
    rendered = pages(name)
    assert len(rendered.encode()) < LARGEST_BYTES
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', rendered)
    assert {address[1:] for address in addresses} <= set(re.findall(r'id="([^"]+)"', rendered))
    assert "unsafe" not in re.search(r"script-src[^;]*?\"", rendered)[0]  # type: ignore[index]
    assert not re.search(r"\bnan\b|\bNone\b", text_of(rendered))


def test_the_best_stands_first_with_its_gain_and_interval(page: str, resnet50: Tuning) -> None:
    found = next(each.comparison for each in resnet50.experiments if each.lever == resnet50.record.best)
    assert found is not None
    card = re.search(r'<section class="verdict".*?</section>', page, flags=re.DOTALL)
    assert card
    said = text_of(card[0])
    assert "Replay a CUDA graph" in said
    assert f"{found.ratio:.3f}× the base, 98 % interval {found.low:.3f}× to {found.high:.3f}×, 5 rounds" in said
    assert "best of 5, which flatters it" in said


def test_each_experiment_says_its_numbers_parity_prediction_and_read_back(page: str, resnet50: Tuning) -> None:
    said = text_of(page)
    for each in resnet50.experiments:
        assert each.comparison is not None
        assert each.parity is not None
        assert each.readback is not None
        assert each.prediction is not None
        assert f"{each.lever} {each.outcome} {each.comparison.ratio:#.3g}×" in said
        assert each.parity.why in said
        assert all(sentence in said for sentence in each.readback.sentences)
        assert (each.prediction.cannot_say or each.prediction.why) in said
    assert "cannot say kept" in said
    assert "P99 latency faster 0.563×" in said


def test_a_round_that_was_measured_again_is_told_with_its_reason(page: str) -> None:
    why = "'prefer-nhwc': latency:p50 is 1.52 times the median of its rounds."
    assert f"Round 5 was measured again: {why}" in text_of(page)


def test_the_yaml_of_the_best_is_its_configuration_without_folders(page: str, resnet50: Tuning) -> None:
    best = resnet50.config()
    assert RunConfig(**yaml.safe_load(pre_of(page)[-3])) == best.changed(model=Path(best.model).name)
    assert "/tmp" not in text_of(page)


def test_the_command_repeats_levers_objective_constraints_rounds_and_seed(resnet50: Tuning) -> None:
    own = Experiment("change-1", "change-1", DOES_NOT_APPLY, "It is already so.")
    record = replace(resnet50.record, constraints=["p99<10ms"], seed=7, experiments=[*resnet50.record.experiments, own])
    command, not_named = tuned_rows.repeat_command(record)
    assert command == (
        "workbench tune --config base.yaml --lever cuda-graph --lever tf32-off --lever float16 --lever prefer-nhwc "
        "--lever fuse-conv-bias --objective latency:p50 --constraint 'p99<10ms' --rounds 5 --order-seed 7"
    )
    assert not_named == ["change-1"]


def test_what_was_not_measured_says_why_and_the_base_stays(resnet50: Tuning) -> None:
    refused = Experiment(levers()[0].name, levers()[0].title, DOES_NOT_APPLY, "The graph <b> has control flow")
    because = "No lever improves on the base beyond doubt, so the base stays."
    page = render_tuning_page(fake(resnet50, experiments=[refused], best=BASE, best_because=because, repeated={}))
    assert f"The base stays {because}" in text_of(page)
    assert f"{DOES_NOT_APPLY} The graph <b> has control flow." in text_of(page)
    assert "No lever was measured." in text_of(page)
    assert set(figures_of(page)) == {"levers", "front"}
    assert "Best of 0 levers" in text_of(page)


def test_a_best_that_only_keeps_the_constraints_is_called_no_improvement(resnet50: Tuning) -> None:
    slower = next(each for each in resnet50.experiments if each.lever == "tf32-off")
    because = "The best latency:p50 that keeps every constraint."
    changes = {"best": "tf32-off", "best_because": because, "constraints": ["memory<4GB"], "experiments": [slower]}
    said = text_of(render_tuning_page(fake(resnet50, **changes)))
    assert "for P50 latency with memory<4GB" in said
    assert "It is no improvement in P50 latency: slower." in said
    assert because in said


def test_hostile_texts_stay_text(resnet50: Tuning) -> None:
    first, *others = resnet50.experiments
    assert first.readback is not None
    changes = {
        "model": HOSTILE,
        "repeated": {0: [HOSTILE]},
        "base": resnet50.record.base | {"model": f"/tmp/{HOSTILE}"},
        "experiments": [
            replace(first, title=HOSTILE, why=HOSTILE, readback=replace(first.readback, findings=[HOSTILE])), *others
        ],
    }  # fmt: skip
    page = render_tuning_page(fake(resnet50, **changes))
    assert "<script>alert" not in page
    assert text_of(page).count("alert(1)") >= 5
    assert "<script>" not in json.dumps(figures_of(page))


def test_a_tuning_without_its_base_run_is_refused_in_a_sentence(h200_experiments: Path, tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_bytes((h200_experiments / "pcie" / "tuning.json").read_bytes())
    with pytest.raises(RunFolderError, match="holds no run of 'base'"):
        write_tuning_page(Tuning(tmp_path), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_is_written_whole_and_is_the_same_each_time(
    tuning: Callable[[str], Tuning], page: str, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "page.html"
    assert write_tuning_page(tuning("resnet50-b1"), target) == target
    written = target.read_text(encoding="utf-8")
    assert written.rstrip().endswith("</html>")
    assert written == page
    assert list(target.parent.iterdir()) == [target]


# what the blocks of each arm say


@pytest.mark.parametrize("name", NAMES)
def test_the_pairs_that_count_are_those_of_the_comparison(tuning: Callable[[str], Tuning], name: str) -> None:
    found = tuning(name)
    metric = Objective.parse(found.record.objective).metric
    for each in found.experiments:
        assert each.comparison is not None
        pairs = arms.round_pairs(found.blocks, [each.lever], metric)
        counted = pairs[pairs["counts"]]
        assert dict(zip(counted["round"], counted["ratio"], strict=True)) == pytest.approx(each.comparison.ratios)
        assert set(pairs.loc[~pairs["counts"], "round"]) == set(found.record.repeated)


def test_medians_of_an_arm_are_those_of_the_comparisons(resnet50: Tuning) -> None:
    points = arms.candidates(resnet50.blocks, [BASE, "cuda-graph"], [Constraint.parse("memory<0.95GB")])
    base, graph = points.to_dict("records")
    graphs = resnet50.experiments[0]
    others = {each.metric: each for each in (graphs.comparison, *graphs.others) if each is not None}
    for row, side in ((base, "base_value"), (graph, "variant_value")):
        for column, name in (("latency_ns", "latency:p50"), ("items_per_s", "throughput"), ("memory_bytes", "memory")):
            assert row[column] == pytest.approx(getattr(others[name], side))
    assert (base["feasible"], graph["feasible"]) == (False, True)


def block(arm: str, number: int, position: int, steps_ns: dict[str, int], **more: Any) -> Block:
    durations = np.array([1000] * 200, np.int64)
    return Block(arm, number, position, durations, durations, 1e6, steps_ns=steps_ns, **more)


def test_the_cold_start_is_the_median_of_each_step_and_its_interval_takes_six_blocks() -> None:
    six = [block(BASE, at, at, {"import": 10 * at, "session": 7}) for at in range(6)]
    five = [block("few", at, at, {"import": 3}) for at in range(5)]
    failed = block("few", 5, 5, {"import": 999}, error=("WorkerError", "It ended."))
    found = arms.cold_start_steps([*six, *five, failed], [BASE, "few"]).astype(object)
    rows = found.where(found.notna(), None).to_numpy().tolist()
    assert rows == [
        [BASE, "import", 25, 0, 50], [BASE, "session", 7, 7, 7], ["few", "import", 3, None, None],
    ]  # fmt: skip


def test_of_a_repeated_round_the_last_block_counts() -> None:
    blocks = [block(BASE, 0, 3, {"import": 1}), block(BASE, 0, 9, {"import": 5}), block("x", 0, 2, {"import": 10}),
              block("x", 0, 8, {"import": 20}), block("x", 1, 4, {"import": 1})]  # fmt: skip
    pairs = arms.round_pairs(blocks, ["x"], cold_start())
    assert pairs[["round", "ratio", "counts"]].to_numpy().tolist() == [[0, 10.0, False], [0, 4.0, True]]
    assert [each.position for each in arms.counted(blocks, "x")] == [8, 4]


def test_the_cold_start_is_drawn_when_it_is_the_objective(resnet50: Tuning, page: str) -> None:
    assert "cold-start" not in figures_of(page)
    experiments = [
        replace(each, comparison=next(other for other in each.others if other.metric == "cold-start"), others=[])
        for each in resnet50.experiments
    ]
    found = render_tuning_page(fake(resnet50, objective="cold-start", experiments=experiments))
    bars = [trace for trace in figures_of(found)["cold-start"]["data"] if trace["type"] == "bar"]
    assert [trace["name"] for trace in bars] == ["import", "libraries", "session", "binding", "first call"]
    assert "Intervals take 6 blocks of each arm." in text_of(found)


def test_changed_outputs_are_no_alternative(page: str) -> None:
    names = json.dumps(figures_of(page)["front"], ensure_ascii=False)
    assert "prefer-nhwc" in names
    assert "fuse-conv-bias" not in names
    assert "Left out, because they compute something else: fuse-conv-bias." in text_of(page)


# options as text


def test_only_what_a_lever_changed_is_shown() -> None:
    base = {"model": "m", "cuda": {"use_tf32": True, "prefer_nhwc": False}, "batch": 1}
    variant = {"model": "m", "cuda": {"use_tf32": False, "prefer_nhwc": False}, "batch": 1, "cuda_graph": True}
    assert changed(variant, base) == {"cuda": {"use_tf32": False}, "cuda_graph": True}
    assert changed(base, base) == {}


def test_yaml_leaves_out_folders_wherever_they_stand() -> None:
    options = {
        "model": "models/jane/a.onnx",
        "tensorrt": {"trt_engine_cache_path": "C:\\Users\\jane\\cache"},
        "session": {"entries": {"x": ["/home/jane doe/y.bin", "GB/s"]}},
    }
    assert yaml.safe_load(as_yaml(options)) == {
        "model": "a.onnx",
        "tensorrt": {"trt_engine_cache_path": "cache"},
        "session": {"entries": {"x": ["y.bin", "GB/s"]}},
    }


# search


@dataclass
class Searched:
    result: SearchResult
    confirmation: Tuning | None
    found: RunFolder

    def run(self) -> RunFolder:
        return self.found


def trial(number: int, binding: str, graph: str, state: str, p50_ns: float | None = None, **more: Any) -> Trial:
    metrics = {"latency:p50": p50_ns, "throughput": p50_ns and 1e9 / p50_ns, "memory": 1e9}
    return Trial(
        number, {"binding": binding, "cuda_graph": graph}, state,  # type: ignore[arg-type]
        options={"model": "/home/jane/m.onnx", "binding": "device"}, metrics=metrics if p50_ns else {},
        rounds=[metrics] if p50_ns else [], feasible=True if p50_ns else None, **more,
    )  # fmt: skip


@pytest.fixture
def searched(tuning: Callable[[str], Tuning]) -> Searched:
    objective = Objective(latency(50))
    trials = [
        trial(0, "base", "base", "complete", 4e6),
        trial(1, "io-binding-device", "base", "complete", 2e6),
        trial(2, "io-binding-pinned", "base", "pruned", 3e6, reason="It is more than 10% worse in each round."),
        trial(3, "io-binding-device", "cuda-graph", "failed", error=("WorkerError", f"{HOSTILE} at /home/jane/x.log")),
        trial(4, "base", "cuda-graph", "complete", 2.5e6),
    ]
    result = SearchResult(Path("s"), objective, (), trials, trials[1], "The best.", "5 trials measured")
    return Searched(result, None, tuning("pcie").run())


def test_a_search_shows_its_history_and_every_trial_with_the_best_first(searched: Searched) -> None:
    page = render_search_page(searched)
    figures = figures_of(page)
    assert set(figures) == {"history", "front"}
    said = text_of(page)
    order = ("1 io-binding-device complete", "4 cuda-graph complete", "0 base complete", "2 io-binding-pinned It is")
    rows = [said.index(f" {words} ") for words in order]
    assert rows == sorted(rows)
    assert "P50 latency 2.00 ms (rounds: 1)." in said
    assert "3 complete, 1 given up early, 1 failed" in said
    assert "an experiment against the base tells more" in said
    assert "<script>alert" not in page
    assert "jane" not in said


def test_a_confirmed_best_shows_what_was_measured_anew(searched: Searched, tuning: Callable[[str], Tuning]) -> None:
    searched.confirmation = tuning("pcie")
    page = render_search_page(searched)
    assert searched.confirmation.experiments[0].why in text_of(page)
    assert "confirmation" in figures_of(page)
    assert "an experiment against the base tells more" not in text_of(page)
    assert "Measured anew against the base: faster." in text_of(page)
    assert pre_of(page) == [as_yaml(searched.confirmation.config().model_dump(mode="json", exclude_unset=True))]


def test_a_best_that_is_not_confirmed_gives_way(searched: Searched, tuning: Callable[[str], Tuning]) -> None:
    searched.confirmation = tuning("pcie")
    (first, *_) = searched.confirmation.record.experiments
    unsure = replace(first, outcome=NO_DIFFERENCE, improvement=False)
    searched.confirmation.record = replace(searched.confirmation.record, experiments=[unsure], best=BASE)
    page = render_search_page(searched)
    assert f"Measured anew against the base: {NO_DIFFERENCE}. So the base stays." in text_of(page)
    assert pre_of(page) == [as_yaml(searched.confirmation.record.base)]


def test_a_search_that_finds_nothing_better_says_so(searched: Searched) -> None:
    searched.result = replace(searched.result, best=searched.result.trials[0])
    assert "No trial is better than the base." in text_of(render_search_page(searched))


def test_a_search_without_a_complete_trial_claims_nothing(searched: Searched) -> None:
    only = [searched.result.trials[3]]
    why = "No configuration could be measured: the trials say why."
    searched.result = replace(searched.result, trials=only, best=None, sentence=why)
    page = render_search_page(searched)
    assert f"Nothing was measured {why}" in text_of(page)
    assert figures_of(page) == {}
    assert pre_of(page) == []


# sweep


@dataclass
class Swept:
    sweep: Sweep
    found: RunFolder

    @property
    def cells(self) -> pd.DataFrame:
        return self.sweep.cells

    def knee(self) -> Cell | None:
        return self.sweep.knee()

    def best(self, *constraints: str) -> Best | None:
        return self.sweep.best([Constraint.parse(text) for text in constraints])

    def run(self, batch: int, concurrency: int) -> RunFolder:
        return self.found

    def figure(self, *constraints: str) -> Any:
        return sweep_map(self.cells)


def swept(found: RunFolder, fits: int) -> Swept:
    """A device that works on one item at a time, 1 ms each, and holds `fits` of them."""

    def measure(config: RunConfig, batch: int, concurrency: int) -> Block | CellError:
        if batch * concurrency > fits:
            return CellError("OutOfMemoryError", "The device at /home/jane/gpu is full <b>.")
        call_ns = 1_000_000 * batch * concurrency + 500_000
        durations = np.full(200, call_ns, np.int64)
        return Block("x", 0, 0, durations, durations, concurrency / call_ns * 1e9, batch, peak_device_bytes=10**9)

    return Swept(sweep(RunConfig(model="m.onnx"), [1, 8, 32], [1, 2], measure), found)


def test_a_sweep_shows_every_cell_the_knee_and_the_best(tuning: Callable[[str], Tuning]) -> None:
    found = swept(tuning("pcie").run(), fits=32)
    page = render_sweep_page(found, ["p99<10ms"])
    said = text_of(page)
    assert "Best of 6 cells, for throughput with p99<10ms batch 8 with 1 caller" in said
    knee = found.knee()
    assert knee is not None
    assert f"The knee is batch {knee.batch} with {knee.concurrency} caller" in said
    assert "The device at gpu is full <b>." in said
    assert page.count("<tr>") == 7
    assert "--sweep --batches 1,8,32 --callers 1,2 --constraint 'p99<10ms'" in pre_of(page)[-1]


def test_a_sweep_of_failures_claims_nothing(tuning: Callable[[str], Tuning]) -> None:
    page = render_sweep_page(swept(tuning("pcie").run(), fits=0))
    assert "Nothing was measured No cell could be measured: the table says why." in text_of(page)
    assert "H200" not in text_of(page)
    assert pre_of(page) == []
