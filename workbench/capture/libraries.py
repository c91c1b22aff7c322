"""The CUDA libraries that ONNX Runtime's CUDA provider needs: loading them, and naming those that do not load."""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import platform
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path


def missing_cuda_libraries() -> list[str]:
    """Shared libraries that ONNX Runtime's CUDA provider is linked to and that do not load here.

    Loads the others into this process, as creating a CUDA session does. A package without the provider is
    `["libonnxruntime_providers_cuda.so"]`. Linux only: elsewhere nothing is examined and the list is empty.
    """
    import onnxruntime

    if platform.system() != "Linux":
        return []
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not provider.exists():
        return [provider.name]
    preload_cuda_libraries()
    return unloadable(needed_libraries(provider))


def preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from the `nvidia-*` packages where they are installed, without ORT's printed complaints."""
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnxruntime.preload_dlls()


def unloadable(names: Iterable[str]) -> list[str]:
    """Those of the shared libraries that the dynamic loader refuses, in the order given."""

    def refused(name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return True
        return False

    return [name for name in names if refused(name)]


def needed_libraries(path: Path) -> list[str]:
    """The DT_NEEDED entries of a 64-bit little-endian ELF file, in file order (System V ABI, chapters 4 and 5).

    The dynamic loader names only the first library that it misses; this names all. Raises `ValueError` for another
    kind of file.
    """
    pt_load, pt_dynamic, dt_null, dt_needed, dt_strtab = 1, 2, 0, 1, 5
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        if image[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path.name} is not a 64-bit little-endian ELF file.")
        (table,) = struct.unpack_from("<Q", image, 32)  # e_phoff
        entry_bytes, entries = struct.unpack_from("<HH", image, 54)  # e_phentsize, e_phnum
        segments = [struct.unpack_from("<IIQQQQ", image, table + i * entry_bytes) for i in range(entries)]
        # fields: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
        dynamic = next((segment for segment in segments if segment[0] == pt_dynamic), None)
        if dynamic is None:
            return []
        tags: list[tuple[int, int]] = []
        for tag, value in struct.iter_unpack("<qQ", image[dynamic[2] : dynamic[2] + dynamic[5]]):
            if tag == dt_null:
                break
            tags.append((tag, value))
        address = next(value for tag, value in tags if tag == dt_strtab)
        strings = next(s[2] + address - s[3] for s in segments if s[0] == pt_load and s[3] <= address < s[3] + s[5])
        starts = [strings + value for tag, value in tags if tag == dt_needed]
        return [image[start : image.find(b"\0", start)].decode() for start in starts]
