"""The TensorRT libraries that ONNX Runtime's TensorRT provider needs: loading them, and saying which are missing."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import platform
from pathlib import Path
from typing import Final

from workbench.capture.libraries import needed_libraries, preload_cuda_libraries, unloadable

TENSORRT: Final = "TensorrtExecutionProvider"

_PACKAGE: Final = "tensorrt_libs"  # the import name of NVIDIA's tensorrt-cu<major>-libs packages
_TENSORRT_LIBRARIES: Final = ("libnvinfer", "libnvonnxparser")
_CORE: Final = "libnvinfer.so."
_PLUGINS: Final = "libnvinfer_plugin.so."  # opened by name while the provider starts, so no ELF entry names it


def tensorrt_problem() -> str:
    """Why the TensorRT provider cannot be used here, or an empty string.

    Loads what is there into this process, as creating a session does: TensorRT's packages lie outside the dynamic
    loader's path. Outside Linux only the onnxruntime package is examined.
    """
    import onnxruntime

    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    on_linux = platform.system() == "Linux"
    if TENSORRT not in onnxruntime.get_available_providers() or (on_linux and not provider.exists()):
        return f"onnxruntime {onnxruntime.__version__} has no TensorRT provider here: install onnxruntime-gpu"
    if not on_linux:
        return ""
    needed = needed_libraries(provider)
    preload_cuda_libraries()
    _preload_tensorrt(needed)
    missing = unloadable(needed)
    if not missing:
        return ""
    packages = ["'ort-workbench[gpu]'"] if any(not name.startswith(_TENSORRT_LIBRARIES) for name in missing) else []
    if any(name.startswith(_TENSORRT_LIBRARIES) for name in missing):
        # the provider is built for one major version of TensorRT, and pip would bring the newest
        major = int(next(name for name in needed if name.startswith(_CORE)).removeprefix(_CORE))
        cuda = onnxruntime.cuda_version.partition(".")[0]
        packages.append(f"'tensorrt-cu{cuda}>={major},<{major + 1}'")
    return f"{', '.join(missing)} did not load: pip install {' '.join(packages)}"


def _preload_tensorrt(needed: list[str]) -> None:
    """Load TensorRT from its pip package, where that is installed, the core first because the others need it."""
    found = importlib.util.find_spec(_PACKAGE)
    core = next((name for name in needed if name.startswith(_CORE)), None)
    if found is None or not found.submodule_search_locations or core is None:
        return
    folder = Path(found.submodule_search_locations[0])
    for name in dict.fromkeys([core, core.replace(_CORE, _PLUGINS), *needed]):
        if (folder / name).is_file():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(folder / name))
