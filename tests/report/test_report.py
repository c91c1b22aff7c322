"""The report is complete, can be checked by hand, asks the network for nothing and gives nothing away."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from workbench.api import Run
from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.levers import lever
from workbench.diagnosis.prediction import predict
from workbench.diagnosis.shares import SHARES
from workbench.diagnosis.situation import Situation
from workbench.errors import ConfigError
from workbench.report import facts
from workbench.report.html import render_report, write_report
from workbench.report.page import write_page
from workbench.report.ranges import MOST_RANGES, nvtx_times, range_rows
from workbench.report.redact import flat, without_folders
from workbench.report.tables import step_rows
from workbench.report.text import MOST_LINES, summary
from workbench.runs.imports import Selection, import_files
from workbench.runs.manifest import DeviceInfo, PassInfo, SourceInfo
from workbench.runs.reader import RunFolder

Opened = Callable[[str], Run]

HOSTILE = "</script><script>alert(1)</script>"
SECTIONS = [
    *"verdict arithmetic help timeline nodes kernels roofline".split(),
    *"latency device copies configuration sources reading".split(),
]
LARGEST_BYTES = 2_500_000


class Hostile(RunFolder):
    """A run whose names try to break out of the page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = self.manifest.model.model_copy(update={"name": HOSTILE})
        self.manifest = self.manifest.model_copy(update={"model": model, "notes": [HOSTILE]})

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found = super().table(name, columns)
        named = {"nodes": ("name", "op_type"), "kernels": ("name",)}.get(name, ())
        return found.assign(**{column: HOSTILE + found[column].astype(str) for column in named if column in found})


class WithoutGpu(RunFolder):
    """The same nodes as if a CPU had run them: no device, no pass that needs one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        skipped = "the run is on the CPU"
        passes = self.manifest.passes | {
            name: PassInfo(name=name, state="skipped", reason=skipped) for name in ("activity", "counters")
        }
        update = {
            "device": DeviceInfo(kind="cpu", name="Some CPU", cores=8),
            "passes": passes,
            "sources": {"activity": SourceInfo(state="absent", reason=skipped)},
        }
        self.manifest = self.manifest.model_copy(update=update)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found = super().table(name, columns)
        return found if name in ("latency", "nodes", "steps", "ranges", "session_events") else found.iloc[:0]


class WithoutNodes(RunFolder):
    """A run whose nodes pass failed, with a reason that names a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        failed = PassInfo(name="nodes", state="failed", reason="No space left for '/home/jane doe/x/profile.json'.")
        update = {"passes": self.manifest.passes | {"nodes": failed}, "complete": False}
        self.manifest = self.manifest.model_copy(update=update)


class Page(HTMLParser):
    """Ids, visible text, addresses and scripts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action") and value]
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append((given.get("id"), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside == ["script"]:
            name, before = self.scripts[-1]
            self.scripts[-1] = (name, before + data)
        elif not self._inside and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def packed(self, name: str) -> str:
        return gzip.decompress(base64.b64decode(dict(self.scripts)[name])).decode()


def page_of(run: RunFolder) -> Page:
    return Page(render_report(run, diagnose(run)))


@pytest.fixture(scope="module")
def rendered(recorded: Opened) -> Callable[[str], str]:
    """The report of the recorded run of a name, rendered once."""
    return cache(lambda name: render_report(recorded(name), recorded(name).diagnosis))


@pytest.fixture(scope="module")
def pages(rendered: Callable[[str], str]) -> Callable[[str], Page]:
    """The same, parsed."""
    return cache(lambda name: Page(rendered(name)))


@pytest.fixture(scope="module")
def page(pages: Callable[[str], Page]) -> Page:
    return pages("compute_numpy")


def test_sections_stand_in_their_order(page: Page) -> None:
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert page.texts.index("PCIe copies") < page.texts.index("The arithmetic")


def test_every_figure_is_in_the_page_once(page: Page) -> None:
    figures = json.loads(page.packed("figures"))
    assert list(figures) == ["shares", "timeline", "nodes", "kernels", "roofline", "latency", "samples"]
    assert all(figure["data"] for figure in figures.values())
    assert [name for name in page.ids if name.startswith("figure-")] == [f"figure-{name}" for name in figures]


def test_the_page_is_small_and_asks_for_nothing(rendered: Callable[[str], str], page: Page) -> None:
    assert len(rendered("launch_device").encode()) < LARGEST_BYTES
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)


@pytest.mark.parametrize("name", ["compute_numpy", "launch_device", "launch_device_graph", "decoder_device"])
def test_shares_can_be_redone_by_hand_from_the_lines(recorded: Opened, name: str) -> None:
    diagnosis = recorded(name).diagnosis
    lines = facts.arithmetic(diagnosis, "cuda")
    used = [int(line.used.replace(",", "")) for line in lines]
    total = used[0]
    by_class: dict[str, int] = {}
    for line, nanoseconds in zip(lines, used, strict=True):
        if line.counts_as:
            by_class[line.counts_as] = by_class.get(line.counts_as, 0) + nanoseconds
    shown = {share.name: share.fraction for share in facts.shares(diagnosis, "cuda")}
    assert {name: value / total for name, value in by_class.items()} == pytest.approx(shown, abs=1e-4)
    parents = [at for at, line in enumerate(lines) if line.depth == 0][1:]
    for at, end in zip(parents, [*parents[1:], len(lines)], strict=True):
        if end > at + 1:
            assert sum(used[at + 1 : end]) == pytest.approx(used[at], abs=3)  # each is rounded to a nanosecond
    assert sum(used[at] for at in parents) == pytest.approx(total, abs=3)


def test_the_verdict_and_its_confidence_are_said(page: Page) -> None:
    assert "of 1,000 perturbed recomputations (not yet calibrated on labelled runs)" in page.text
    assert "They were not tried here." in page.text


def test_copies_say_what_they_carry(page: Page) -> None:
    at = max(place for place, text in enumerate(page.texts) if text == "input x")  # findings show it, too
    assert page.texts[at + 1 : at + 5] == ["h2d", "pageable → device", "1", "33.6 MB"]
    assert "output y" in page.texts


def test_kernels_say_their_family_and_by_which_rule(page: Page) -> None:
    at = page.texts.index("nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT")
    family, tensor_cores, rule, per_call = page.texts[at + 1 : at + 5]
    assert (family, tensor_cores, per_call) == ("GEMM", "yes", "8")
    assert "FP16" in rule
    assert page.texts[at + 6] == "100 %"


@pytest.fixture(scope="module")
def page_without_nodes(h200: Path) -> Page:
    return page_of(WithoutNodes(h200 / "launch_device"))


def test_kernels_stand_in_a_run_without_nodes_too(page_without_nodes: Page) -> None:
    found = page_without_nodes
    at = found.texts.index("GEMM")
    assert found.texts[at - 1].startswith("gemvx::kernel<")
    assert found.texts[at + 1] == "no"
    assert "5 measured calls of the activity pass" in found.text


def test_the_last_row_sums_the_nodes_that_are_left_out(recorded: Opened, pages: Callable[[str], Page]) -> None:
    count = len(recorded("launch_device").diagnosis.nodes.nodes)  # type: ignore[union-attr]
    assert f"{count - 25} other nodes" in pages("launch_device").texts


def test_hostile_names_stay_text(h200: Path) -> None:
    run = Hostile(h200 / "compute_numpy")
    written = render_report(run, diagnose(run))
    assert "<script>alert" not in written
    found = Page(written)
    assert [name for name, _ in found.scripts] == ["plotly-js", "figures", None]
    assert HOSTILE in found.text
    assert "<script>" not in found.packed("figures")


def test_a_policy_forbids_requests_and_foreign_scripts(rendered: Callable[[str], str]) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', rendered("compute_numpy"))
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert "http" not in policy[1]


def test_a_cpu_run_says_what_does_not_apply(h200: Path) -> None:
    run = WithoutGpu(h200 / "resnet50_b1_device")
    diagnosis = diagnose(run)
    found = Page(render_report(run, diagnosis))
    assert found.texts.count("not applicable") == 2
    assert "framework overhead" in found.text
    assert "launch" not in " ".join(share.name for share in facts.shares(diagnosis, "cpu"))
    assert "The device was not sampled: NVML" in found.text
    text = summary(run, diagnosis)
    assert re.search(r"PCIe copies +not applicable", text)
    assert "the run is on the CPU" in found.text


def test_a_run_without_nodes_says_what_would_provide_them(page_without_nodes: Page) -> None:
    found = page_without_nodes
    assert found.text.count("the nodes pass provides this picture") == 2  # the timeline shows the activity pass
    assert set(json.loads(found.packed("figures"))) == {"shares", "timeline", "kernels", "latency", "samples"}
    assert "No space left for 'profile.json'." in found.text
    assert "jane" not in found.text
    assert "incomplete run" in found.text


class WithLoads(RunFolder):
    """A run in whose traced first call CUDA loads code for 100 ms."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        if name != "loads":
            return super().table(name, columns)
        ranges = super().table("ranges")
        begins = ranges.loc[(ranges["pass"] == "activity") & (ranges["name"] == "first call"), "start_ns"]
        loads = pd.DataFrame({"pass": "activity", "start_ns": begins, "end_ns": begins + 100_000_000})
        return loads if columns is None else loads[list(columns)]


def test_the_cold_start_is_split_by_what_the_trace_saw(h200: Path) -> None:
    steps = step_rows(WithLoads(h200 / "resnet50_b1_device"))
    assert steps is not None
    assert [(name, time) for name, time, *_ in steps.rows[-2:]] == [("binding", "1.82 ms"), ("first call", "404 ms")]
    heads = steps.bare + steps.traced
    first = dict(zip(heads, steps.rows[-1][3], strict=True))
    assert first["beyond a usual call"] == "403 ms"
    assert (first["step"], first["CUDA loads code"], first["none of these"]) == ("399 ms", "100 ms", "298 ms")
    assert (first["host allocates"], first["device works"]) == ("0 ns", "804 µs")
    assert first["kernels beyond a usual call"] == "0"
    binding = dict(zip(heads, steps.rows[-2][3], strict=True))
    assert (binding["beyond a usual call"], binding["kernels beyond a usual call"]) == ("–", "–")


def test_the_cold_start_says_what_was_not_recorded(h200: Path, page: Page) -> None:
    assert "traced, in the activity pass" in page.texts
    assert "the loading of code was not recorded" in page.text
    assert "CUDA loads code" not in page.texts
    on_cpu = step_rows(WithoutGpu(h200 / "resnet50_b1_device"))
    assert on_cpu is not None
    assert (on_cpu.bare, on_cpu.traced) == (["beyond a usual call"], [])


class LatencyOnly(WithoutNodes):
    """A run of which only the bare latency is known."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found = super().table(name, columns)
        return found[found["pass"] == "latency"] if name != "samples" else found.iloc[:0]


def test_a_run_with_latency_alone_claims_nothing(h200: Path) -> None:
    run = LatencyOnly(h200 / "launch_device")
    diagnosis = diagnose(run)
    found = Page(render_report(run, diagnosis))
    assert "inconclusive" in found.texts
    assert "there is nothing to recompute from" in found.text
    assert "No class is large and clear enough to name a lever." in found.text
    assert "inconclusive" in summary(run, diagnosis).splitlines()[0]


@pytest.fixture(scope="module")
def imported(capture: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """Opens a capture under tests/data/captures as a run without nodes; `chosen` is the range to import."""

    @cache
    def opened(name: str, chosen: str | None = None) -> RunFolder:
        folder = tmp_path_factory.mktemp("imported") / "run"
        return RunFolder(import_files([capture(f"{name}.sqlite")], folder, Selection(range=chosen)))

    return opened


@pytest.fixture(scope="module")
def imported_page(imported: Callable[..., RunFolder]) -> Page:
    return page_of(imported("nsight_h200_four_classes", "launch:measure"))


def test_ranges_stand_between_nodes_and_kernels(imported_page: Page) -> None:
    found = imported_page
    assert [name for name in found.ids if name in ("nodes", "ranges", "kernels")] == ["nodes", "ranges", "kernels"]
    assert "#ranges" in found.addresses
    at = found.texts.index("NVTX range")
    cells = found.texts[at + 6 : at + 18]  # ten calls of 300 kernels each, and the phase around them
    assert (cells[0], cells[1], cells[3], cells[5]) == ("run", "10", "3,000", "100 %")
    assert (cells[6], cells[7], cells[9], cells[11]) == ("launch:measure", "1", "0", "0 %")
    assert "innermost range that was open on its thread when it was launched" in found.text


def test_the_table_of_ranges_sums_to_all_kernels(imported: Callable[..., RunFolder]) -> None:
    run = imported("nsight_h100_two_processes")
    ranges = nvtx_times(run)
    assert ranges is not None
    shown = range_rows(ranges)
    assert len(shown.longest) == MOST_RANGES
    assert [row.cells[0] for row in shown.rest] == [
        f"{len(ranges.times) - 1 - MOST_RANGES:,} other names",
        "in no range",
    ]
    assert sum(int(row.cells[3].replace(",", "")) for row in shown.longest + shown.rest) == len(run.kernels)
    lines = summary(run, diagnose(run)).splitlines()
    assert len(lines) <= MOST_LINES
    at = lines.index(f"Longest ranges, of {len(ranges.times) - 1:,} (kernel time in all):")
    for line, row in zip(lines[at + 1 : at + 6], shown.longest, strict=False):
        name, *_, time, share = row.cells
        assert line.split(maxsplit=4) == [*time.split(), *share.split(), name]
    assert not lines[at + 6]


@pytest.mark.parametrize("name", ["launch_device", "launch_device_graph"])
def test_ranges_that_only_mark_phases_and_calls_are_left_out(
    recorded: Opened, pages: Callable[[str], Page], name: str
) -> None:
    assert "ranges" not in pages(name).ids
    assert "Longest ranges" not in summary(recorded(name), recorded(name).diagnosis)


@pytest.mark.parametrize("name", ["launch_device", "launch_device_nsys", "resnet50_b1_graph"])
def test_phases_and_calls_are_no_reason_for_a_table(recorded: Opened, name: str) -> None:
    assert nvtx_times(recorded(name)) is None


class NamedRanges(RunFolder):
    """A run of whose NVTX ranges all have one name."""

    name = ""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found = super().table(name, columns)
        return found.assign(name=self.name) if name == "ranges" and "name" in found else found


def test_names_of_ranges_are_escaped_and_shortened(imported: Callable[..., RunFolder]) -> None:
    run = NamedRanges(imported("nsight_h200_four_classes", "launch:measure").folder)
    run.name = f"{HOSTILE}\x1b[2J" + "x" * 500
    diagnosis = diagnose(run)
    written = render_report(run, diagnosis)
    assert "<script>alert" not in written
    assert HOSTILE in Page(written).text
    assert "x" * 100 not in Page(written).text
    assert "\x1b" not in summary(run, diagnosis)


def test_the_range_that_marks_the_calls_is_no_reason_for_a_table(imported: Callable[..., RunFolder]) -> None:
    run = NamedRanges(imported("nsight_h200_four_classes", "launch:measure").folder)
    run.name = "run"
    assert run.manifest.imported is not None
    assert run.manifest.imported.calls_marked_by == "the NVTX range 'run'"
    assert nvtx_times(run) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("cannot read /home/jane/models/a.onnx.", "cannot read a.onnx."),
        ("cannot read '/home/jane doe/a.onnx': no", "cannot read 'a.onnx': no"),
        ("at C:\\Users\\jane\\a.onnx today", "at a.onnx today"),
        ("~jane/x/y.npz", "y.npz"),
        ("see https://onnxruntime.ai/docs/x", "see https://onnxruntime.ai/docs/x"),
        ("GB/s and CPU/GPU and 1 / 2", "GB/s and CPU/GPU and 1 / 2"),
    ],
)
def test_folders_are_left_out(text: str, kept: str) -> None:
    assert without_folders(text) == kept


def test_only_the_name_of_a_file_is_shown_from_the_configuration() -> None:
    options = {"model": "/home/jane/m.onnx", "feeds": "C:\\d\\in.npz", "budget": {"seconds": 4.0}}
    assert flat(options) == {"model": "m.onnx", "feeds": "in.npz", "budget.seconds": "4.0"}


def test_levers_leave_out_what_is_already_so(pages: Callable[[str], Page]) -> None:
    without, with_graph = (pages(name) for name in ("launch_device", "launch_device_graph"))
    assert lever("cuda-graph").title in without.texts
    assert lever("cuda-graph").title not in with_graph.texts
    assert lever("io-binding-device").title not in without.texts


def test_a_lever_says_what_it_should_give_and_how_that_was_worked_out(
    situation: Callable[[str], Situation], page: Page
) -> None:
    said = predict(lever("io-binding-device"), situation("compute_numpy"))
    at = page.texts.index(lever("io-binding-device").title)
    assert page.texts[at + 1] == said.why
    assert page.texts[at + 4] == f"{said.ratio:.2f} ({said.low:.2f} to {said.high:.2f})"


def test_an_imported_capture_gets_levers_without_predictions(imported_page: Page) -> None:
    assert lever("cuda-graph").title in imported_page.texts
    assert "predicted T′ / T" not in imported_page.texts


@pytest.mark.parametrize("name", ["compute_numpy", "launch_device_graph", "decoder_device", "resnet50_b64_device"])
def test_summary_fits_a_terminal(recorded: Opened, name: str) -> None:
    run, diagnosis = recorded(name), recorded(name).diagnosis
    lines = summary(run, diagnosis).splitlines()
    assert len(lines) <= MOST_LINES
    assert run.manifest.model.name in lines[0]
    drawn = {share.name: line for share in facts.shares(diagnosis, "cuda") for line in lines if share.name in line[:20]}
    assert len(drawn) == len(SHARES)
    bars = {name: line.count("█") / 30 for name, line in drawn.items()}
    for share in facts.shares(diagnosis, "cuda"):
        assert bars[share.name] == pytest.approx(share.fraction, abs=0.02)


def test_summary_obeys_no_terminal_commands(h200: Path) -> None:
    class Terminal(Hostile):
        def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
            found = super().table(name, columns)
            return found.assign(name="\x1b[2Jgone\n") if name == "nodes" else found

    run = Terminal(h200 / "compute_numpy")
    text = summary(run, diagnose(run))
    assert "\x1b" not in text
    assert "�[2Jgone" in text


def test_the_report_is_written_whole_and_is_the_same_each_time(
    h200: Path, rendered: Callable[[str], str], tmp_path: Path
) -> None:
    run = RunFolder(h200 / "compute_numpy")
    target = tmp_path / "new" / "report.html"
    assert write_report(run, diagnose(run), target) == target
    written = target.read_text(encoding="utf-8")
    assert written.endswith("</html>")
    assert written == rendered("compute_numpy")
    assert list(target.parent.iterdir()) == [target]


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^The report cannot be written to .+: choose another file with --out\.$"):
        write_page("a page", tmp_path)
    assert list(tmp_path.iterdir()) == []
