"""Takes folders out of texts that leave the machine: they name people and places."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

_ROOT: Final = r"(?:/|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\)"
_QUOTED: Final = re.compile(rf"(['\"]){_ROOT}[^'\"]*?([^'\"\\/]+)[\\/]?\1")
_BARE: Final = re.compile(rf"(?<![\w./:]){_ROOT}(?:[^\s'\"<>()\[\],;:]*[\\/])?([^\s'\"<>()\[\],;:\\/]+)")


def without_folders(text: str) -> str:
    """Every absolute path in a sentence becomes the name of its last part."""
    return _BARE.sub(r"\1", _QUOTED.sub(r"\1\2\1", text))


def file_name(path: str) -> str:
    """The last part of a path of either kind of system."""
    return PurePosixPath(PureWindowsPath(path).as_posix()).name


def flat(options: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested options as `outer.inner: text`, with the folders of files left out."""
    result: dict[str, str] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif prefix + key in ("model", "feeds"):
            result[prefix + key] = file_name(str(value))
        else:
            result[prefix + key] = without_folders(str(value))
    return result
