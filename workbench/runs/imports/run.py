"""Imports the captures of other tools: files in, one complete run folder out, or one sentence and nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.errors import ConfigError
from workbench.runs.imports.draft import CeilingsOf, Draft, Selection, described
from workbench.runs.imports.from_cupti_rows import import_cupti_rows
from workbench.runs.imports.from_kineto import import_kineto
from workbench.runs.imports.from_nsight import import_nsight
from workbench.runs.imports.from_profile import import_profiles
from workbench.runs.imports.kinds import sort_captures
from workbench.runs.manifest import Ceilings, DeviceInfo, ImportInfo, SourceInfo
from workbench.runs.memory import give_back_memory
from workbench.runs.nsight.export import REPORT_SUFFIXES, sqlite_of_report
from workbench.runs.writer import new_run_folder

Progress = Callable[[str, float], None]


def _no_ceilings(device: DeviceInfo) -> tuple[Ceilings, SourceInfo]:
    return Ceilings(), SourceInfo(state="absent", reason="no ceilings were measured on such a device")


def import_files(
    files: Sequence[str | Path],
    target: Path,
    selection: Selection = Selection(),  # noqa: B008  (frozen)
    *,
    ceilings_of: CeilingsOf = _no_ceilings,
    progress: Progress = lambda name, share: None,
) -> Path:
    """Import captures that belong together into the run folder `target`, and return it.

    files: one Nsight Systems report or export, ONNX Runtime profiles of the same process, or both; or one PyTorch
    trace; or one file of CUPTI rows.

    Raises `ConfigError` for a selection that the files do not hold, `SourceError` for a file that cannot be
    read, `RunFolderError` when `target` exists; nothing is left behind then.
    """
    captures = sort_captures(files)
    if captures.nsight is None and (selection.process is not None or selection.device is not None):
        raise ConfigError("Options 'process' and 'device' choose within an Nsight Systems export: leave them out.")
    with new_run_folder(target) as folder:
        draft = Draft(
            folder=folder,
            selection=selection,
            name=_name(captures.main, selection),
            device=DeviceInfo(kind="cpu", name=""),
            info=ImportInfo(
                files=[],
                range=selection.range,
                calls="..".join(map(str, selection.calls)) if selection.calls else None,
                process=selection.process,
                device=selection.device,
            ),
        )
        if captures.kineto is not None:
            draft.info.files.append(described(captures.kineto, "kineto"))
            import_kineto(captures.kineto, draft, progress)
        elif captures.cupti_rows is not None:
            draft.info.files.append(described(captures.cupti_rows, "cupti rows"))
            import_cupti_rows(captures.cupti_rows, draft, progress)
        elif captures.nsight is not None:
            _import_nsight(captures.nsight, captures.profiles, draft, progress)
        else:
            draft.info.files += [described(profile, "ort profile") for profile in captures.profiles]
            import_profiles(captures.profiles, draft, progress)
        draft.finish(ceilings_of)
        give_back_memory()
    return target


def _import_nsight(path: Path, profiles: list[Path], draft: Draft, progress: Progress) -> None:
    export = path
    if path.suffix in REPORT_SUFFIXES:
        progress("nsys export", 0.0)
        export = sqlite_of_report(path, draft.folder / "export.sqlite")
    try:
        import_nsight(export, profiles, draft, progress)
    finally:
        if export != path:
            export.unlink(missing_ok=True)
    draft.info.files.insert(0, described(path, "nsight", draft.info.files.pop(0).version))


def _name(path: Path, selection: Selection) -> str:
    name = path.name
    for suffix in (".gz", ".json", ".sqlite", ".nsys-rep", ".qdrep", ".trace", ".pt"):
        name = name.removesuffix(suffix)
    return f"{name}, {selection.range}" if selection.range else name
