"""Streams the events of a trace: a bare JSON array (ONNX Runtime) or an object with `traceEvents` (Chrome, Kineto).

Memory stays flat for files of any size: text is read in chunks, decoded record by record with the standard library's C
scanner, and handed out in batches of one chunk. Small batches are also the quickest: the collector of cyclic garbage
walks every container that is alive, so a list of all events costs more than decoding them.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO, Any, Final

from workbench.errors import SourceError

CHUNK_BYTES: Final = 1 << 16
"""Read at a time: what lies in the processor's cache is decoded a third faster than chunks of 1 MB."""
MAX_RECORD_CHARS: Final = 4 << 20
"""Longest event or metadata value that is read: real ones take a few kB, and empty lists take 30 bytes a character."""
MAX_DAMAGED: Final = 10_000
"""Damaged records after which a file is given up; looking for the next one costs far more than reading one."""
MAX_METADATA_CHARS: Final = 1 << 16
"""What is kept beside `traceEvents`, all values together; Kineto's take a few kB, a list of stack frames has no use."""
MAX_EXPANSION: Final = 200
"""Expanded over compressed size from `_FREE_EXPANSION_BYTES` on; traces reach 10 to 60, deflate could reach 1032."""
_FREE_EXPANSION_BYTES: Final = 64 << 20

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GAP: Final = re.compile(r"[\s,]*")
_SPACE: Final = re.compile(r"\s*")
# Where reading resumes after a damaged record: an object whose first key is one of the trace event format, after the
# end of another one; lists of objects inside of events (shapes) do not look so.
_NEXT_RECORD: Final = re.compile(r'\}\s*,\s*(?=\{\s*"(?:name|cat|ph|ts|dur|pid|tid|id|args)"\s*:)')
_RECORD_BORDER_CHARS: Final = 1024
# What an error may stand at when the text ends inside a token: `tru`, `-Infi`, `\\ud83d\\ude0`, or nothing at all.
_CUT_TOKEN: Final = re.compile(r"[\w\\+.-]{0,16}\Z")


class EventFile:
    """One pass over the events of a file; iterate it once, then ask what was found.

    path: a JSON file, gzip or not (told by its first bytes). parse_float: makes a value of the text of a number with a
    fraction or an exponent; `decimal.Decimal` keeps it exact. Iteration gives batches, non-empty lists of dicts, and
    raises `SourceError` when the file cannot be read, is no trace, or is hostile (a record above `MAX_RECORD_CHARS`, a
    nesting or a number beyond all use, an expansion above `MAX_EXPANSION`, damage above `MAX_DAMAGED`).

    metadata: the values beside `traceEvents`, by key, without what exceeds `MAX_METADATA_CHARS`.
    cut: the file ends before its JSON does; the records before that are all given.
    skipped: damaged records, and records that are no objects.
    """

    def __init__(self, path: Path, parse_float: Callable[[str], Any] | None = None) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.cut = False
        self.skipped = 0
        self._damaged = 0
        self._decode = JSONDecoder(parse_float=parse_float).raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self._chunks: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        try:
            with self.path.open("rb") as file:
                self._chunks = _decoded(file, self.path)
                yield from self._events_of_file()
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceError(f"The trace {self.path.name} cannot be read ({reason}): record it again.") from None

    def _events_of_file(self) -> Iterator[list[dict[str, Any]]]:
        opening = self._next_char()
        if opening == "[":
            self._at += 1
            yield from self._array()
        elif opening == "{":
            self._at += 1
            yield from self._object()
        else:
            raise SourceError(f"{self.path.name} holds no JSON trace: choose another file, or record it again.")

    def _object(self) -> Iterator[list[dict[str, Any]]]:
        found, room, char = False, MAX_METADATA_CHARS, ""
        try:
            while (char := self._next_char(_GAP)) == '"':
                key, _ = self._value()
                if self._next_char() != ":":
                    break
                self._at += 1
                if self._next_char() == "[" and key == "traceEvents":
                    found = True
                    self._at += 1
                    yield from self._array()
                    continue
                value, length = self._value()
                if length <= room:
                    room -= length
                    self.metadata[key] = value
        except (_CutError, _DamagedError):
            self.cut = True
        self.cut = self.cut or char != "}"
        if not found:
            raise SourceError(f"{self.path.name} holds no traceEvents: give a trace of PyTorch, or record it again.")

    def _array(self) -> Iterator[list[dict[str, Any]]]:
        """Batches of the array that `_at` stands in, up to behind its closing bracket."""
        batch: list[dict[str, Any]] = []
        chars = 0
        while True:
            char = self._next_char(_GAP)
            if not char or char == "]":
                break
            start = self._at
            try:
                event, length = self._value()
            except _DamagedError as damage:
                self.skipped += 1
                self._damaged += 1
                if self._damaged > MAX_DAMAGED:
                    raise SourceError(
                        f"{self.path.name} holds more than {MAX_DAMAGED:,} damaged records: record it again."
                    ) from None
                if not self._resume(max(damage.at, start)):
                    break
                continue
            except _CutError:
                break
            if type(event) is dict:
                batch.append(event)
            else:
                self.skipped += 1
            chars += length
            if chars >= CHUNK_BYTES and batch:
                yield batch
                batch, chars = [], 0
        if batch:
            yield batch
        if char == "]":
            self._at += 1
        else:
            self.cut = True

    def _value(self) -> tuple[Any, int]:
        """The value at `_at` and its length, and `_at` behind it; raises `_DamagedError` or `_CutError`."""
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except JSONDecodeError as error:
                unclosed = error.msg.startswith("Unterminated string")
                if not unclosed and not _CUT_TOKEN.match(self._text, error.pos):
                    raise _DamagedError(error.pos) from None
                if self._ended:
                    raise _CutError from None
            except RecursionError:
                raise SourceError(f"{self.path.name} nests its values too deep for a trace: record it again.") from None
            except (ValueError, ArithmeticError):
                raise SourceError(f"{self.path.name} holds a number that no trace needs: record it again.") from None
            else:
                # a number at the end of the text may go on in the next chunk
                if self._ended or end < len(self._text):
                    length = end - self._at
                    self._at = end
                    return value, length
            self._grow()

    def _grow(self) -> None:
        """Take in as much text as is left unread, so that retrying a long record stays linear in its length."""
        self._forget()
        room = MAX_RECORD_CHARS - len(self._text)
        if room <= 0:
            raise SourceError(
                f"{self.path.name} holds a record of more than {MAX_RECORD_CHARS >> 20} MB: record it again."
            )
        parts, wanted = [self._text], min(max(len(self._text), CHUNK_BYTES), room)
        while wanted > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            parts.append(chunk)
            wanted -= len(chunk)
        self._text = "".join(parts)

    def _forget(self) -> None:
        self._text = self._text[self._at :]
        self._at = 0

    def _next_char(self, gap: re.Pattern[str] = _SPACE) -> str:
        """The character after the gap at `_at`, where `_at` then stands; empty at the end of the file."""
        while True:
            found = gap.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._grow()

    def _resume(self, at: int) -> bool:
        """Go to the next record that begins behind `at`; False when there is none."""
        self._at = at
        while (found := _NEXT_RECORD.search(self._text, self._at)) is None:
            if self._ended:
                return False
            self._at = max(self._at, len(self._text) - _RECORD_BORDER_CHARS)
            self._grow()
        self._at = found.end()
        return True


def plain_text(text: str) -> str:
    """The text as UTF-8 can hold it: JSON may escape half of a surrogate pair, which no table takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class _DamagedError(Exception):
    """The text at `at` is no JSON."""

    def __init__(self, at: int) -> None:
        self.at = at


class _CutError(Exception):
    """The file ends inside a value."""


def _decoded(file: IO[bytes], path: Path) -> Iterator[str]:
    """The text of a file, expanded when it is gzip; a gzip stream that breaks off ends there."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    blocks = _expanded(file, path) if zipped else iter(lambda: file.read(CHUNK_BYTES), b"")
    for block in blocks:
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _expanded(file: IO[bytes], path: Path) -> Iterator[bytes]:
    expanded = 0
    with gzip.GzipFile(fileobj=file) as stream:
        while True:
            try:
                block = stream.read1(CHUNK_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                return  # the JSON breaks off here too, and its reader says so
            if not block:
                return
            expanded += len(block)
            if expanded > max(_FREE_EXPANSION_BYTES, MAX_EXPANSION * file.tell()):
                raise SourceError(f"{path.name} expands beyond {MAX_EXPANSION} times its size: record it again.")
            yield block
