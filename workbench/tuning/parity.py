"""Whether a variant still computes the same: the outputs of one call on the same feeds, against those of the base.

The measure that decides is max|variant - base| / max|base| of each output, because rounding errors grow with the scale
of what is summed and not with the element that they end up in. Relative errors of elements are reported beside it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.capture.feeds import load_feeds
from workbench.errors import ConfigError, RunFolderError
from workbench.tuning.tolerance import Tolerance

Outputs = Mapping[str, NDArray[Any]]

RELATIVE_FLOOR: Final = 2.0**-10
"""Elements below this part of the output's scale are what a sum cancelled to, where a relative error means nothing."""

LIMIT_ALONE: Final = "A limit on an output metric needs the metric: give both."
_ELEMENTS: Final = 1 << 20  # compared at a time, so that float64 copies of large outputs need not fit beside them


@dataclass(frozen=True)
class OutputParity:
    """One output. Errors are None where the two cannot be subtracted; non-finite elements are left out of them.

    max_absolute: largest |variant - base|. max_relative: largest |variant - base| / max(|base|, floor) with floor =
    `RELATIVE_FLOOR` · scale, scale = max|base|. scaled: max_absolute / scale; infinite where only the base is all zero.
    unequal: elements that differ. non_finite: elements where one is NaN or infinite and the other is not the same.
    problem: why this output is beyond the tolerance, empty when it is within.
    """

    name: str
    shape: tuple[int, ...]
    base_dtype: str
    variant_dtype: str
    scale: float | None = None
    max_absolute: float | None = None
    max_relative: float | None = None
    scaled: float | None = None
    unequal: int | None = None
    non_finite: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Parity:
    """The outputs of a variant against its base; `why` says in a sentence what `within` rests on.

    metric: what the user's own metric gave, None without one. base_spread: by output, the largest scaled error of the
    base against itself in other processes; it is shown and widens no tolerance.
    """

    within: bool
    why: str
    tolerance: Tolerance
    outputs: list[OutputParity]
    metric: float | None = None
    base_spread: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def under(self, tolerance: Tolerance) -> Parity:
        """The same outputs held to another tolerance; a limit on a user's own metric is not looked at again."""
        outputs = [_held_to(output, tolerance) for output in self.outputs]
        problems = [output.problem for output in outputs if output.problem]
        why = f"Beyond the tolerance: {'; '.join(problems)}." if problems else _within(outputs, tolerance)
        return replace(self, within=not problems, why=why, tolerance=tolerance, outputs=outputs)

    @property
    def identical(self) -> bool:
        """Whether every output is equal in every element."""
        return all(output.unequal == 0 for output in self.outputs)


def parity(
    base: Path | Outputs,
    variant: Path | Outputs,
    *,
    tolerance: Tolerance,
    metric: Callable[[Outputs, Outputs], float] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    base_again: Sequence[Path | Outputs] = (),
) -> Parity:
    """Compare outputs by name: numbers within `tolerance`, everything that names things exactly.

    Floating-point and 8-bit integer outputs are numbers, subtracted in float64 whatever their types; a changed type is
    noted. Other integers, booleans and text are taken for tokens, classes and indices, and have to be equal. metric:
    of (base outputs, variant outputs), such as the agreement of the first class, and the limits it has to keep beside
    the tolerance. base_again: outputs of other processes of the base.

    Raises `RunFolderError` when a file cannot be read, `ConfigError` when the metric fails, or for a limit
    without one.
    """
    ours, theirs = load_outputs(base), load_outputs(variant)
    outputs = [_compared(name, ours[name], theirs[name], tolerance) for name in ours if name in theirs]
    problems = [output.problem for output in outputs if output.problem]
    problems += [f"output {name!r} is missing" for name in ours if name not in theirs]
    if not ours:
        problems = ["there is no output to compare"]
    notes = [f"Output {name!r} is not among those of the base." for name in theirs if name not in ours]
    notes += [
        f"Output {output.name!r} changed from {output.base_dtype} to {output.variant_dtype}; compared in float64."
        for output in outputs
        if output.base_dtype != output.variant_dtype
    ]
    value = None
    if metric is not None:
        value = _of_user(metric, ours, theirs)
        if (at_least is not None and not value >= at_least) or (at_most is not None and not value <= at_most):
            asked = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
            problems.append(f"the metric is {value:g}, and {asked} was asked for")
    elif at_least is not None or at_most is not None:
        raise ConfigError(LIMIT_ALONE)
    spread = _spread(ours, [load_outputs(again) for again in base_again], tolerance)
    notes += [
        f"The base differs from itself between processes: output {name!r} by {_said(scaled)} of its scale."
        for name, scaled in spread.items()
        if scaled != 0
    ]
    why = f"Beyond the tolerance: {'; '.join(problems)}." if problems else _within(outputs, tolerance)
    return Parity(not problems, why, tolerance, outputs, value, spread, notes)


def load_outputs(outputs: Path | Outputs) -> Outputs:
    """The outputs in a file, or those given; raises `RunFolderError` when the file cannot be read."""
    if not isinstance(outputs, Path):
        return outputs
    try:
        return load_feeds(outputs)
    except (OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFolderError(
            f"The outputs {outputs} cannot be read ({type(error).__name__}): measure this configuration again."
        ) from None


def _compared(name: str, base: NDArray[Any], variant: NDArray[Any], tolerance: Tolerance) -> OutputParity:
    found = OutputParity(name, base.shape, base.dtype.name, variant.dtype.name)
    if base.shape != variant.shape:
        shapes = f"{list(base.shape)} to {list(variant.shape)}"
        return replace(found, problem=f"output {name!r} changed its shape from {shapes}")
    if not (_is_number(base) and _is_number(variant)):
        unequal = int(np.count_nonzero(base != variant)) if base.dtype.kind == variant.dtype.kind else base.size
        problem = f"output {name!r} ({base.dtype.name}) differs in {unequal} of {base.size} elements" if unequal else ""
        return replace(found, unequal=unequal, problem=problem)
    scale = max((float(np.abs(part[np.isfinite(part)]).max(initial=0)) for part, _ in _parts(base, base)), default=0.0)
    absolute = relative = 0.0
    unequal = non_finite = 0
    for ours, theirs in _parts(base, variant):
        finite = np.isfinite(ours) & np.isfinite(theirs)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        error = np.abs(theirs[finite] - ours[finite])
        floor = np.maximum(np.abs(ours[finite]), RELATIVE_FLOOR * scale)
        absolute = max(absolute, float(error.max(initial=0)))
        ratio = np.divide(error, floor, out=np.where(error > 0, np.inf, 0.0), where=floor > 0)
        relative = max(relative, float(ratio.max(initial=0)))
        unequal += int(np.count_nonzero(~same))
        non_finite += int(np.count_nonzero(~finite & ~same))
    scaled = absolute / scale if scale > 0 else (np.inf if absolute > 0 else 0.0)
    measured = replace(
        found,
        scale=scale,
        max_absolute=absolute,
        max_relative=relative,
        scaled=scaled,
        unequal=unequal,
        non_finite=non_finite,
    )
    return _held_to(measured, tolerance)


def _held_to(output: OutputParity, tolerance: Tolerance) -> OutputParity:
    """The output with its problem under a tolerance; what cannot be subtracted keeps the one that it has."""
    if output.scaled is None:
        return output
    problem = ""
    if output.non_finite:
        count = output.non_finite
        problem = f"output {output.name!r} has {count} NaN or infinite elements that are not the same in both"
    elif output.scaled > tolerance.scaled:
        off, most = _said(output.scaled), _said(tolerance.scaled)
        problem = f"output {output.name!r} is off by {off} of its scale, above {most}"
    return replace(output, problem=problem)


def _is_number(array: NDArray[Any]) -> bool:
    # ml_dtypes' floating-point types have kind V, or f
    return array.dtype.kind in "fV" or (array.dtype.kind in "iu" and array.dtype.itemsize == 1)


def _parts(base: NDArray[Any], variant: NDArray[Any]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    ours, theirs = base.reshape(-1), variant.reshape(-1)
    for start in range(0, base.size, _ELEMENTS):
        end = start + _ELEMENTS
        yield ours[start:end].astype(np.float64), theirs[start:end].astype(np.float64)


def _of_user(metric: Callable[[Outputs, Outputs], float], base: Outputs, variant: Outputs) -> float:
    try:
        return float(metric(base, variant))
    except Exception as error:  # a user's own code
        cause = f"{type(error).__name__}: {error}"
        raise ConfigError(f"The output metric failed ({cause}): try it on saved outputs.") from error


def _spread(base: Outputs, again: Sequence[Outputs], tolerance: Tolerance) -> dict[str, float | None]:
    """By output the largest scaled error over the other processes; None where one of them cannot be subtracted."""
    spread: dict[str, float | None] = {}
    for other in again:
        for name in base.keys() & other.keys():
            found = _compared(name, base[name], other[name], tolerance)
            scaled = 0.0 if found.unequal == 0 else None if found.non_finite else found.scaled
            before = spread.get(name, 0.0)
            spread[name] = None if scaled is None or before is None else max(before, scaled)
    return dict(sorted(spread.items()))


def _within(outputs: Sequence[OutputParity], tolerance: Tolerance) -> str:
    if all(output.unequal == 0 for output in outputs):
        return "Every output is equal in every element."
    worst = max(outputs, key=lambda output: output.scaled or 0.0)
    return (
        f"Output {worst.name!r} is off the most, by {_said(worst.scaled)} of its scale, within "
        f"{_said(tolerance.scaled)} for {tolerance.reason}."
    )


def _said(scaled: float | None) -> str:
    return "an amount that cannot be given" if scaled is None else f"{scaled:.2g}"
