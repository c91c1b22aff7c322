"""C++ names as a person reads them, through the C++ runtime that ONNX Runtime itself is linked with."""

from __future__ import annotations

import ctypes
from functools import cache

_PREFIX = "_Z"


@cache
def _runtime() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return None
    library.__cxa_demangle.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    return library


@cache
def demangle(name: str) -> str:
    """The demangled name, or the name as it is when it is not mangled or no C++ runtime is at hand.

    Itanium C++ ABI, `abi::__cxa_demangle`, which gives back memory that the caller frees.
    """
    library = _runtime()
    if library is None or not name.startswith(_PREFIX):
        return name
    status = ctypes.c_int()
    found = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if status.value or not found:
        return name
    try:
        return ctypes.string_at(found).decode(errors="replace")
    finally:
        library.free(found)
