"""What the parent asks of the child process, and how the child says what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel

from workbench.capture.resolve import Device
from workbench.config import RunConfig
from workbench.config.model import Conversion

MODEL: Final = "model.onnx"
NOTES: Final = "notes.json"


class Request(BaseModel):
    """One conversion of `source` into `folder`, which then holds `MODEL`, its external data and `NOTES`.

    shapes: dimensions of every input in the run. samples: files of feeds to calibrate on, the run's own first.
    """

    conversion: Conversion
    source: Path
    folder: Path
    config: RunConfig
    device: Device
    shapes: dict[str, list[int]]
    samples: list[Path] = []

    @property
    def scratch(self) -> Path:
        """A folder for files on the way, which is removed at the end."""
        return self.folder / "scratch"

    @property
    def target(self) -> Path:
        """The file that the conversion writes."""
        return self.folder / MODEL
