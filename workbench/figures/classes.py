"""The classes of the verdict as people see them: one colour and one name each, the same everywhere."""

from __future__ import annotations

from typing import Final

# Okabe and Ito, "Color Universal Design", 2008: told apart with every common colour-vision deficiency. Of its eight
# colours the six mid-tones that stand out from white and from black; grey is for what has no class.
COLOURS: Final = {
    "compute": "#D55E00",
    "memory": "#0072B2",
    "pcie": "#E69F00",
    "launch": "#CC79A7",
    "sync": "#009E73",
    "other": "#999999",
}
ACCENT: Final = "#56B4E9"  # the palette's sky blue: measurements that belong to no class
ON_COLOUR: Final = {"memory": "#FFFFFF"}
"""Text on a class's colour; black where none is named, for a contrast of 4.5 or more."""

# The limit of a node or kernel (`workbench.analysis.roofline.LIMITS`) and the class whose share it counts in.
CLASS_OF_LIMIT: Final = {"compute": "compute", "memory": "memory", "under-filled": "launch", "unknown": "other"}

_LABELS: Final = {
    "compute": "compute",
    "memory": "memory",
    "pcie": "PCIe copies",
    "launch": "launch",
    "sync": "synchronisation",
    "other": "not classed",
}
_HOLDERS: Final = {
    "compute": "Work limited by compute holds",
    "memory": "Work limited by memory bandwidth holds",
    "pcie": "PCIe copies hold",
    "launch": "Launches, gaps and under-filled kernels hold",
    "sync": "Waiting for synchronisation holds",
    "other": "Time that could not be classed holds",
}
FRAMEWORK_OVERHEAD: Final = "framework overhead"


def label(name: str, device_kind: str) -> str:
    """The name of a class on a device of kind `cuda` or `cpu`."""
    return FRAMEWORK_OVERHEAD if (name, device_kind) == ("launch", "cpu") else _LABELS[name]


def label_of_verdict(klass: str, device_kind: str) -> str:
    """The name of a verdict in one word: a class, `a+b` for a pair, or `inconclusive`, which stays."""
    return " and ".join(label(name, device_kind) if name in _LABELS else name for name in klass.split("+"))


def holder(name: str, device_kind: str) -> str:
    """Subject and verb of a sentence that says what a class holds."""
    return "Framework overhead holds" if (name, device_kind) == ("launch", "cpu") else _HOLDERS[name]
