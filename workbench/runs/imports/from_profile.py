"""ONNX Runtime profiles without a trace of the device, as a run: the nodes as the host saw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from workbench.errors import ConfigError, SourceError
from workbench.runs.imports.calls import Calls
from workbench.runs.imports.draft import Draft
from workbench.runs.imports.profiles import NODES, Profiles, damage
from workbench.runs.manifest import DeviceInfo, SourceInfo
from workbench.runs.ort_profile import OrtProfile

CPU_PROVIDERS: Final = frozenset(
    ("CPUExecutionProvider", "DnnlExecutionProvider", "XnnpackExecutionProvider", "OpenVINOExecutionProvider")
)
_NO_DEVICE_WORK: Final = (
    "an ONNX Runtime profile holds no device work: import it together with the Nsight Systems export of its process"
)


def import_profiles(paths: Sequence[Path], draft: Draft, progress: Callable[[str, float], None]) -> None:
    """Fill the draft's folder; raises `SourceError` when the profiles hold no complete call."""
    selection = draft.selection
    for name in ("range", "call_range"):
        if getattr(selection, name) is not None:
            option = name.removesuffix("_range")
            raise ConfigError(f"Option {option!r} needs NVTX ranges, which no profile holds: leave it out.")
    progress("profile", 0.0)
    profiles = [OrtProfile(path) for path in paths]
    found = Profiles.of(profiles, _offsets(profiles, draft))
    draft.info.skipped += damage(profiles)
    calls: Calls = found.calls
    if not len(calls):
        raise SourceError(f"{paths[0].name} holds no complete call (model_run): record at least one call to its end.")
    window = None
    if selection.calls is not None:
        calls = calls.chosen(*selection.calls)
        window = calls.window
    found.write(draft.folder, calls, window, whole=False)
    draft.set_calls(calls, NODES)
    draft.info.window_ns = None if window is None else (window.start_ns, window.end_ns)
    draft.providers = found.providers
    on_cpu = set(found.providers) <= CPU_PROVIDERS
    kind = "CPU" if on_cpu else "GPU"
    draft.device = DeviceInfo(kind="cpu" if on_cpu else "cuda", name=f"a {kind} that the profile does not name")
    draft.sources["ort_profiler"] = SourceInfo(state="present")
    if not on_cpu:
        draft.sources["activity"] = SourceInfo(state="absent", reason=_NO_DEVICE_WORK)
    progress("profile", 1.0)


def _offsets(profiles: Sequence[OrtProfile], draft: Draft) -> list[int]:
    """Where each profile's clock began. Files name only a local time, so that several cannot be placed exactly."""
    hints = [profile.file_time_hint for profile in profiles]
    if len(profiles) == 1 or None in hints:
        if len(profiles) > 1:
            draft.notes.append("The profiles do not say when they began: their times all count from 0.")
        return [0] * len(profiles)
    first = min(hint for hint in hints if hint is not None)
    draft.notes.append("The profiles were placed by the times in their names, to the second only.")
    return [int((hint - first).total_seconds() * 1e9) for hint in hints if hint is not None]
