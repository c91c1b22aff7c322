"""What a counting rule returns, and the conventions that all rules share.

- A multiply-add is 2 flops.
- Tensor flops are those of matrix products, whichever unit executed them; fp flops are additions, multiplications,
  comparisons and conversions, of integers too; special flops are evaluations of division, square root, exponential
  and other transcendental functions, one each however many instructions they take.
- Bytes are compulsory traffic: each distinct input read once, each output written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from workbench.analysis.work.shapes import NodeShapes


class Work(NamedTuple):
    """Work of one node execution, None where it is not known. `dtype` is that of the unit that computes."""

    tensor_flops: int | None
    fp_flops: int | None
    special_flops: int | None
    read_bytes: int | None
    written_bytes: int | None
    dtype: str | None
    how: str


UNKNOWN = Work(None, None, None, None, None, None, "unknown")

Rule = Callable[[NodeShapes], Work]
"""A rule raises `LookupError` where the shapes that it needs are missing."""


def counted(
    node: NodeShapes,
    rule: str,
    *,
    tensor: int = 0,
    fp: int = 0,
    special: int = 0,
    read_bytes: int | None = None,
    dtype: str | None = None,
) -> Work:
    """Work by a formula; `read_bytes` and `dtype` where they differ from all inputs and from `unit_dtype`."""
    return Work(
        tensor_flops=tensor,
        fp_flops=fp,
        special_flops=special,
        read_bytes=node.read_bytes() if read_bytes is None else read_bytes,
        written_bytes=node.written_bytes(),
        dtype=dtype or unit_dtype(node),
        how=f"formula:{rule}",
    )


def unit_dtype(node: NodeShapes) -> str | None:
    """The first floating type among inputs, then outputs; else the first type: Cast, Where and Quantize compute so."""
    dtypes = [t.dtype for t in (*node.inputs, *node.outputs) if t is not None]
    return next((d for d in dtypes if "float" in d), dtypes[0] if dtypes else None)
