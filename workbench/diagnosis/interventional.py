"""Shares from outside: one thing is changed whose effect on one class is known, and the change of T gives that share.

A trace correlates, an intervention causes: where both give a class the same share, the verdict stands on two legs. Each
share here is `factor` · (1 - T' / T), with T' and T the times of an item with and without the lever:

- pcie: buffers on the device take all copies of inputs and outputs away, so the factor is 1.
- launch: a replayed graph takes the host and its launches away and leaves the gaps of the replay: 1.
- launch, under-filled: k times the batch costs nothing where the device was empty and k times as much where it was
  full: k / (k - 1). Weights that are read once for all items count as not growing, too.
- compute: TF32 off divides the peak of float32 products by r and leaves the bytes alone: -1 / (r - 1).

No option takes bytes away and leaves the kernels as they are: on an H200 conversions to float16 and to 8-bit weights of
graphs that memory limits gave a fifth to two thirds of what their bytes promise, or cost time. So memory, and compute
where no products are in float32, is what the other classes leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workbench.diagnosis.levers import lever as lever_named
from workbench.diagnosis.levers.entry import Lever
from workbench.diagnosis.prediction.formula import Unpredictable
from workbench.diagnosis.shares import CLASSES, Pieces
from workbench.diagnosis.situation import Situation

TOLERANCE: Final[Mapping[str, float]] = {"pcie": 0.10, "launch": 0.10, "compute": 0.15, "memory": 0.15}
"""How far a traced share may lie from the interventional one. Products of small or odd shapes do not slow down by the
ratio of the peaks, and what is left inherits the errors of the others: these get more."""

EXCLUSION: Final = "what is left"
MOST_OVER_FLOOR: Final = 3.0
"""Kernels of a graph that another class limits hide their own work behind it, or take a few times their floor."""
_FLOORS: Final = {"compute": "compute_bound_ns", "memory": "memory_bound_ns"}

MORE_ITEMS: Final = 4
"""Times the batch in the intervention on under-filled time."""

_ON_DEVICE: Final = {"binding": "device"}


@dataclass(frozen=True)
class Intervention:
    """A lever whose effect on T measures one share.

    share: the class. lever: by name. factor: of (1 - T' / T). traced: what the trace says of the same time, a fraction
    of T. against: what the base has to have, beside the run's own options, so that the lever changes one thing alone.
    items: of a call with the lever, for every one of a call without.
    """

    share: str
    lever: str
    factor: Callable[[Situation], float]
    traced: Callable[[Situation], float]
    against: Mapping[str, Any]
    items: int = 1

    def made(self) -> Lever:
        """The lever itself."""
        return lever_named(self.lever)


@dataclass(frozen=True)
class InterventionalShare:
    """One class's share of T from an intervention beside the traced one, all fractions of T.

    lever: by name, or `EXCLUSION`. low, high: the interval. why: the arithmetic.
    """

    share: str
    lever: str
    traced: float
    value: float
    low: float
    high: float
    why: str

    @property
    def agrees(self) -> bool:
        """Whether the two lie within the class's tolerance, given the interval."""
        tolerance = TOLERANCE[self.share]
        return self.low - tolerance <= self.traced <= self.high + tolerance


def share_of(
    intervention: Intervention, situation: Situation, ratio: float, low: float, high: float
) -> InterventionalShare:
    """The share from T' / T of an item, with the interval of that ratio.

    situation: of the base. Raises `Unpredictable` where the data do not give the factor or the traced share.
    """
    factor = intervention.factor(situation)
    value, *ends = (factor * (1.0 - each) for each in (ratio, low, high))
    return InterventionalShare(
        intervention.share,
        intervention.lever,
        intervention.traced(situation),
        value,
        min(ends),
        max(ends),
        f"{intervention.lever}: {factor:.3g} × (1 - {ratio:.3f}) = {value:.3f}",
    )


def interventions(share: str, situation: Situation) -> list[Intervention]:
    """The interventions on a class, the most telling first: for launch it depends on what the trace blames."""
    found = [each for each in INTERVENTIONS if each.share == share]
    diagnosis = situation.diagnosis
    if share == "launch" and diagnosis is not None and diagnosis.pieces is not None:
        causes = diagnosis.pieces.launch_causes()
        if max(causes, key=lambda name: float(causes[name])) == "under-filled":
            found = found[::-1]
    return found


def _pieces(situation: Situation) -> Pieces:
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.pieces is None:
        raise Unpredictable("The run recorded no pieces of T to compare with.")
    return diagnosis.pieces


def _traced_share(name: str) -> Callable[[Situation], float]:
    return lambda situation: float(_pieces(situation).shares()[name])


def removable_launch(situation: Situation) -> float:
    """Host and launch latency of T, less the gaps that a replayed graph keeps between its kernels."""
    pieces, gap_ns = _pieces(situation), situation.ceilings.replay_gap_ns
    if situation.trace is None or gap_ns is None:
        raise Unpredictable("The gap between kernels of a replayed graph, or how many there are, was not measured.")
    kept_ns = gap_ns * max(situation.trace.pieces - 1.0, 0.0)
    return max(float(pieces.host + pieces.launch_latency) - kept_ns, 0.0) / float(pieces.latency_ns)


def _not_growing(situation: Situation) -> float:
    """Launch in all its causes, and what it takes to read the weights, which a larger batch does not read again."""
    pieces, bandwidth = _pieces(situation), situation.ceilings.memory_bytes_per_s
    if situation.graph is None or bandwidth is None:
        raise Unpredictable("The graph was not saved, or the bandwidth not measured, so weights cannot be told apart.")
    weights_ns = min(1e9 * sum(situation.graph.weights.values()) / bandwidth, float(pieces.memory))
    launch_ns = float(pieces.host + pieces.launch_latency + pieces.under_filled)
    return (launch_ns + weights_ns) / float(pieces.latency_ns)


def tf32_ratio(situation: Situation) -> float:
    """r: the measured peak of TF32 products over that of float32 products without TF32."""
    peaks = situation.ceilings.flops_per_s
    slow = peaks.get("tensor:float32", peaks.get("fp:float32"))
    if slow is None or "tensor:tf32" not in peaks:
        raise Unpredictable("The peaks of float32 products with and without TF32 were not measured.")
    return peaks["tensor:tf32"] / slow


def by_exclusion(share: str, situation: Situation, others: Sequence[InterventionalShare]) -> InterventionalShare:
    """What is left of T for memory or compute: 1 less what interventions give the other classes.

    others: one share of each class that could be put to the test. pcie counts as none where inputs and outputs stay on
    the device. The other of memory and compute, where no lever tests it, takes between its floor, counted work at the
    measured ceiling, and `MOST_OVER_FLOOR` times that. Raises `Unpredictable` where a class is neither tested nor
    bounded.
    """
    pieces = _pieces(situation)
    tested = {each.share: each for each in others}
    value, spread, least, said = 1.0, 0.0, 0.0, []
    for name in (each for each in CLASSES if each != share):
        if name in tested:
            value -= tested[name].value
            spread += ((tested[name].high - tested[name].low) / 2) ** 2
            said.append(f"{name} {tested[name].value:.2f}")
        elif name == "pcie" and situation.config.binding == "device":
            said.append("no copies of inputs and outputs")
        elif name in _FLOORS:
            floor = _floor(name, situation)
            value -= floor
            least += (MOST_OVER_FLOOR - 1.0) * floor
            said.append(f"{name} at least {floor:.2f}, its floor")
        else:
            raise Unpredictable(f"No intervention tells the share of {name}, so that {share} cannot be what is left.")
    half = spread**0.5
    return InterventionalShare(
        share, EXCLUSION, float(pieces.shares()[share]), value, value - half - least, value + half,
        f"{EXCLUSION}: 1 less {', '.join(said)} = {value:.3f}",
    )  # fmt: skip


def _floor(name: str, situation: Situation) -> float:
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.nodes is None or not len(diagnosis.nodes.nodes):
        raise Unpredictable(f"The nodes were not recorded, so that the floor of {name} is not known.")
    return float(diagnosis.nodes.nodes[_FLOORS[name]].sum()) / diagnosis.latency.median_ns


INTERVENTIONS: Final = (
    Intervention("pcie", "io-binding-device", lambda _: 1.0, _traced_share("pcie"), {}),
    Intervention("launch", "cuda-graph", lambda _: 1.0, removable_launch, _ON_DEVICE),
    Intervention(
        "launch", f"batch-x{MORE_ITEMS}", lambda _: MORE_ITEMS / (MORE_ITEMS - 1), _not_growing, _ON_DEVICE, MORE_ITEMS
    ),
    Intervention("compute", "tf32-off", lambda given: -1.0 / (tf32_ratio(given) - 1.0), _traced_share("compute"), {}),
)  # fmt: skip
