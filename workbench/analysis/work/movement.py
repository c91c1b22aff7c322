"""Operators that move data and compute nothing, and those that only rename a shape."""

from __future__ import annotations

from typing import Final

from workbench.analysis.work.rule import Rule, Work
from workbench.analysis.work.shapes import NodeShapes

VIEWS: Final = "Reshape Squeeze Unsqueeze Flatten Identity Dropout Shape Size"
"""ORT aliases input and output of these, or writes a few host integers: zero bytes."""

WHOLE: Final = (
    "Transpose Concat Split SplitToSequence ConcatFromSequence DepthToSpace SpaceToDepth ReverseSequence "
    "ReorderInput ReorderOutput MemcpyFromHost MemcpyToHost Trilu NonZero OneHot Compress "
    "ScatterElements ScatterND ConstantOfShape Constant EyeLike Range RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike"
)
"""Every input is read once, every output written once."""

SELECTIVE: Final = "Slice Gather GatherElements GatherND Expand Tile Pad CenterCropPad"
"""Of the first input, no more than what is returned is read."""


def _moved(node: NodeShapes, read_bytes: int) -> Work:
    return Work(0, 0, 0, read_bytes, node.written_bytes(), _moved_dtype(node), "data movement")


def _moved_dtype(node: NodeShapes) -> str | None:
    return next((t.dtype for t in (*node.inputs, *node.outputs) if t is not None), None)


def _view(node: NodeShapes) -> Work:
    return Work(0, 0, 0, 0, 0, _moved_dtype(node), "view")


def _whole(node: NodeShapes) -> Work:
    return _moved(node, node.read_bytes())


def _selective(node: NodeShapes) -> Work:
    """Returned elements that repeat (Expand, Tile, a repeated index) are read once, hence the smaller of the two."""
    return _moved(node, min(node.input(0).size_bytes, node.output().size_bytes) + node.read_bytes(1))


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(VIEWS.split(), _view),
    **dict.fromkeys(WHOLE.split(), _whole),
    **dict.fromkeys(SELECTIVE.split(), _selective),
}
