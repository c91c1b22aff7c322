"""Runs: profile a model, import a capture, open a run, look at a recorded one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import user_cache, zoo
from workbench.analysis.work import count_work
from workbench.api.display import Displayed, run_html
from workbench.capture.record import DEFAULT_TIMEOUT_S, record
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.result import Diagnosis
from workbench.errors import ModelError, RunFolderError
from workbench.runs.imports import Selection, import_files
from workbench.runs.imports.calls import parse_calls
from workbench.runs.manifest import Ceilings, DeviceInfo, SourceInfo
from workbench.runs.reader import RunFolder
from workbench.runs.writer import MANIFEST
from workbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.api.confirming import Confirmation
    from workbench.diagnosis.findings import Finding
    from workbench.runs.export import ExportFormat

_SAMPLES = Path(__file__).parents[1] / "samples"
RESNET50 = "resnet50"
_LONGEST_NAME_BYTES = 160  # file systems take 255, of which the time and the mark of an unfinished folder need some


class Run(RunFolder, Displayed):
    """An opened run: its tables as DataFrames, its diagnosis, its report."""

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Verdict, shares and their arithmetic, worked out from the tables on first use."""
        return diagnose(self)

    @cached_property
    def findings(self) -> list[Finding]:
        """Concrete causes with the rows that show them, that which would save most first."""
        from workbench.diagnosis.findings import findings

        return findings(self, self.diagnosis)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis and the findings: the object that `workbench diagnose --json` prints."""
        return {**self.diagnosis.to_dict(), "findings": [each.to_dict() for each in self.findings]}

    @cached_property
    def work(self) -> pd.DataFrame:
        """Flops and bytes of each row of `nodes`, as `workbench.analysis.work.count_work` derives them."""
        return count_work(self.nodes, self.graph)

    def confirm(self, **options: Any) -> Confirmation:
        """Put the verdict to the test on the GPU at hand; the options are those of `workbench.confirm`."""
        from workbench.api.confirming import confirm

        return confirm(self, **options)

    def report(self, path: str | Path) -> Path:
        """Write the run's report as one HTML file that opens offline; raises `DiskFullError`."""
        from workbench.report.html import write_report

        return write_report(self, self.diagnosis, Path(path))

    def export(self, format: ExportFormat, out: str | Path | None = None) -> list[Path]:
        """Write the tables for other tools, and return the files written.

        format: `perfetto` makes one trace for ui.perfetto.dev, `csv` and `parquet` a folder with a file for each table.
        out: file or folder to make, by default `<run>.perfetto-trace`, `<run>-csv` or `<run>-parquet` beside the run.
        Raises `ConfigError` for an unknown format, `RunFolderError` when `out` exists, `DiskFullError`.
        """
        from workbench.runs.export import export_run

        return export_run(self, format, None if out is None else Path(out))

    @cached_property
    def figures(self) -> dict[str, go.Figure]:
        """Figures by name: `shares`, `timeline`, `nodes`, `kernels`, `roofline`, `latency` and `samples` of the report,
        `gaps` between device work, `counters` over time.
        """
        from workbench.report.notebook_pictures import notebook_pictures
        from workbench.report.pictures import pictures

        return {**pictures(self, self.diagnosis), **notebook_pictures(self)}

    def summary(self) -> str:
        """The verdict for a terminal."""
        from workbench.report.text import summary

        return summary(self, self.diagnosis)

    def _html(self) -> str:
        return run_html(self)


def profile(
    model: str | Path | None = None,
    config: RunConfig | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    activity: Activity = "auto",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> Run:
    """Profile a model and return the opened run.

    model: path of an ONNX file, or the name of a model of the zoo (`resnet50`, `compute`, …); it may stand in `config`
    instead. config: a `RunConfig` or a mapping of its options. out: folder to make, by default
    `runs/<model>-<time>`. activity: source of device work, `auto`, `cupti`, `nsys` or `none`. timeout_s: seconds for
    each pass. progress: called with the name of the pass and its share done, 0..1.

    Raises subclasses of `WorkbenchError`; a run whose later passes failed is returned with `manifest.complete` False.
    """
    chosen = config_of(model, config)
    target = Path(out) if out is not None else free_folder(Path(chosen.model).stem)
    chosen = chosen.changed(model=str(resolve_model(chosen.model)))
    return Run(record(chosen, target, activity=activity, timeout_s=timeout_s, progress=progress))


def config_of(model: str | Path | None, config: RunConfig | Mapping[str, Any] | None) -> RunConfig:
    """The configuration that a model and options make together; raises `ConfigError`."""
    options = config.model_dump(exclude_unset=True) if isinstance(config, RunConfig) else dict(config or {})
    if model is not None:
        options["model"] = str(model)
    return RunConfig(**options)


def import_run(
    files: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    range: str | None = None,
    calls: str | tuple[int, int] | None = None,
    call: str | None = None,
    process: int | None = None,
    device: int | None = None,
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> Run:
    """Make a run of captures that other tools made, and return it opened.

    files: an Nsight Systems report or export (.nsys-rep, SQLite, folder of Parquet), ONNX Runtime profiles of the same
    process, or both together; or one PyTorch (Kineto) trace; or one file of CUPTI rows.
    out: folder to make, by default `runs/<file>-<time>`. range: NVTX range that bounds the part to import, such as
    `compute:measure`. calls: calls inside it, counted from 0, as `"20..30"` or `(20, 30)`, both included. call: NVTX
    range that marks one call; without it, ONNX Runtime's own calls or the range that repeats and covers the most time.
    process: system process id. device: CUDA device number. progress: called with what goes on and its share done, 0..1.

    Raises `ConfigError` for a selection that the files do not hold, `SourceError` for a file that cannot be read; then
    nothing is left behind.
    """
    given = [files] if isinstance(files, (str, Path)) else list(files)
    chosen = parse_calls(calls) if isinstance(calls, str) else calls
    selection = Selection(range=range, calls=chosen, call_range=call, process=process, device=device)
    stem = Path(given[0]).name.partition(".")[0] if given else ""
    target = Path(out) if out is not None else free_folder(stem or "import")
    return Run(import_files(given, target, selection, ceilings_of=_ceilings_of, progress=progress))


def _ceilings_of(device: DeviceInfo) -> tuple[Ceilings, SourceInfo]:
    """Ceilings that were measured on a device of the same name: by this user, or else for a recorded run."""
    from workbench.capture.ceilings.cache import of_device

    found = of_device(device.name)
    if found is not None:
        return found, SourceInfo(state="present")
    for name, run in samples().items():
        if run.manifest.device.name == device.name and run.manifest.ceilings.flops_per_s:
            note = f"The ceilings were measured on another {device.name}, the one of the sample {name!r}."
            ceilings = run.manifest.ceilings
            return ceilings.model_copy(update={"notes": [*ceilings.notes, note]}), SourceInfo(state="present")
    reason = f"none were measured on {device.name}: run `workbench profile` once on such a device"
    return Ceilings(), SourceInfo(state="absent", reason=reason)


def resolve_model(model: str) -> Path:
    """The file of a model: a path as it is, a name of the zoo built into the user's cache; raises `ModelError`."""
    path = Path(model)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if model == RESNET50:
        return zoo.resnet50_path()
    names = [entry.name for entry in zoo.models()]
    if model not in names:
        raise ModelError(f"There is no file {model!r}, and the zoo has only {', '.join([RESNET50, *names])}.")
    kept = user_cache.root() / "models" / __version__ / f"{model}.onnx"  # another version may build it otherwise
    return kept if kept.is_file() else zoo.write(model, kept)


def free_folder(model: str) -> Path:
    """A folder `runs/<model>-<time>` that is not there yet; of a long name its beginning."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    begin = os.fsencode(model)[:_LONGEST_NAME_BYTES].decode(errors="ignore")
    base = Path("runs") / f"{begin}-{stamp}"
    return next(path for n in range(1, 1000) if not (path := base if n == 1 else Path(f"{base}-{n}")).exists())


def load(folder: str | Path) -> Run:
    """Open a run folder, or a sample by its name (`wb.samples()` lists them); raises `RunFolderError`."""
    path = Path(folder)
    if not path.exists() and (_SAMPLES / path).is_dir() and len(path.parts) == 1:
        path = _SAMPLES / path
    if not path.is_dir():
        known = ", ".join(sorted(samples()))
        raise RunFolderError(f"There is no run folder {path}: give the folder of a run, or a sample ({known}).")
    return Run(path)


def samples() -> dict[str, Run]:
    """The runs recorded on a real GPU that ship with the package, by name."""
    return {path.name: Run(path) for path in sorted(_SAMPLES.iterdir()) if (path / MANIFEST).is_file()}
