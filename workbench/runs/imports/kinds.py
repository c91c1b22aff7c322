"""What kind of capture a file is, by its content rather than its name."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from workbench.errors import ConfigError, SourceError
from workbench.runs.nsight.export import REPORT_SUFFIXES
from workbench.runs.nsight.source import FOLDER_SUFFIX, SQLITE_MAGIC

_HEAD_BYTES: Final = 4096
_SINGLE: Final = {"nsight": "Nsight Systems export", "kineto": "PyTorch trace", "cupti rows": "file of CUPTI rows"}
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Captures(NamedTuple):
    """The files by kind; at most one Nsight export or report, or one file of another kind."""

    nsight: Path | None
    profiles: list[Path]
    kineto: Path | None
    cupti_rows: Path | None

    @property
    def main(self) -> Path:
        """The file that the run is named after."""
        return next(path for path in (self.nsight, self.kineto, self.cupti_rows, *self.profiles) if path is not None)


def sort_captures(files: Sequence[str | Path]) -> Captures:
    """Raises `ConfigError` for files that do not belong together, `SourceError` for one that is no capture."""
    if not files:
        raise ConfigError("No file was given: name an Nsight Systems export, an ONNX Runtime profile or both.")
    found: dict[str, list[Path]] = {"nsight": [], "profile": [], "kineto": [], "cupti rows": []}
    for file in dict.fromkeys(Path(file) for file in files):
        found[_kind(file)].append(file)
    for kind, name in _SINGLE.items():
        if len(found[kind]) > 1:
            raise ConfigError(f"A run holds one {name}, and {len(found[kind])} were given: import each on its own.")
    for kind in ("kineto", "cupti rows"):
        if found[kind] and len(found[kind]) < sum(map(len, found.values())):
            raise ConfigError(f"A {_SINGLE[kind]} stands for itself: import it on its own and compare the two runs.")
    first = {kind: next(iter(files), None) for kind, files in found.items()}
    return Captures(first["nsight"], found["profile"], first["kineto"], first["cupti rows"])


def _kind(file: Path) -> str:
    if file.is_dir():
        if any(each.suffix == FOLDER_SUFFIX for each in file.iterdir()):
            return "nsight"
        raise SourceError(f"{file} holds no {FOLDER_SUFFIX} file: give the folder of `nsys export --type=parquetdir`.")
    try:
        if file.exists() and not file.is_file():  # nobody may ever write into a pipe
            raise SourceError(f"{file} is no file that can be read twice: save it as one.")
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if head.startswith(_GZIP_MAGIC):
            with gzip.open(file) as unpacked:
                head = unpacked.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"There is no file {file}: check its name.") from None
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise SourceError(f"The file {file} cannot be read ({said}): copy it again.") from None
    if head.startswith(SQLITE_MAGIC) or file.suffix in REPORT_SUFFIXES:
        return "nsight"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        return "cupti rows" if text[1:].lstrip().startswith(b"[") else "profile"
    if text.startswith(b"{"):
        return "kineto"
    raise SourceError(
        f"{file} is no capture that is known: give an Nsight Systems report or export, an ONNX Runtime profile, a "
        "PyTorch trace or a file of CUPTI rows."
    )
