"""What the quiz answers to each choice: the misconception behind it, held against the run's own numbers.

Numbers that a run does not hold leave their sentence out; a share is always there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workbench.diagnosis.shares import LAUNCH_CAUSES
from workbench.diagnosis.verdict import INCONCLUSIVE
from workbench.figures.classes import label
from workbench.figures.units import format_bytes, format_bytes_per_s, format_ns, format_percent
from workbench.widgets.quiz_facts import Facts

Said = str | None
Refutation = Callable[[Facts], list[Said]]

_LOOKS_BUSY: Final = 0.5  # of NVML's utilisation
CAUSES: Final = {
    "host": "the host: launches come after the previous work has ended",
    "launch latency": "launch latency: work is launched in time and starts late",
    "under-filled": "under-filled kernels: too small or too short to fill the GPU",
}
"""The sub-causes of `launch` as the quiz offers them."""


def refuted(truth: str, chosen: str, facts: Facts) -> list[str]:
    """Why a choice is not what holds the run back, in sentences. truth: the verdict's label, `a+b` for two together."""
    if chosen == INCONCLUSIVE:
        return _clear(facts)
    found = [sentence for sentence in _WRONG.get((truth, chosen), _unclear)(facts) if sentence]
    return [*found, _share(facts, chosen)]


def refuted_cause(truth: str, chosen: str, facts: Facts) -> list[str]:
    """Why a sub-cause of `launch` is not the largest one, in sentences."""
    pieces = facts.pieces
    if pieces is None:
        return [_MISTAKEN_CAUSE[chosen]]
    times_ns = pieces.launch_causes()
    said = f"Of T = {format_ns(facts.latency_ns)}, this holds {_part(times_ns[chosen], facts)}."
    return [_MISTAKEN_CAUSE[chosen], said, *(each for each in _CAUSE[truth](facts) if each)]


def confirmed(truth: str, facts: Facts) -> list[str]:
    """What shows that a choice is right, in sentences."""
    if truth not in _RIGHT:
        return _unclear_shares(facts)
    return [*(sentence for sentence in _RIGHT[truth](facts) if sentence), _share(facts, truth)]


def confirmed_cause(truth: str, facts: Facts) -> list[str]:
    """What shows that the sub-cause of `launch` is right, in sentences."""
    pieces = facts.pieces
    held = [] if pieces is None else [f"It holds {_part(pieces.launch_causes()[truth], facts)}, more than the others."]
    return [*(each for each in _CAUSE[truth](facts) if each), *held]


def _utilisation(facts: Facts) -> Said:
    if facts.running is None:
        return None
    tempts = ", which tempts to call the GPU busy with arithmetic" if facts.running >= _LOOKS_BUSY else ""
    said = (
        f"NVML's GPU utilisation reads {format_percent(facts.running)}{tempts}. It only says for how much of the time "
        "some kernel or copy was running: a kernel on one multiprocessor counts like one on all of them."
    )
    if facts.sm_active is not None:
        said += (
            f" The hardware counters saw multiprocessors active {format_percent(facts.sm_active)} of the time, waiting "
            "for memory included"
        )
        tensor = facts.tensor_active
        said += "." if tensor is None else f", and tensor cores {format_percent(tensor)}."
    return said


def _arithmetic_needs(facts: Facts) -> Said:
    if facts.flops is None or not facts.compute_bound_ns:
        return None
    return (
        f"All arithmetic of a call, {_flop(facts.flops)}, needs {_part(facts.compute_bound_ns, facts)} at the measured "
        "peak of this device."
    )


def _bytes_need(facts: Facts) -> Said:
    if facts.moved_bytes is None or not facts.memory_bound_ns:
        return None
    rate = f" of {format_bytes_per_s(facts.memory_bytes_per_s)}" if facts.memory_bytes_per_s else ""
    return (
        f"The {format_bytes(facts.moved_bytes)} that the nodes have to read and write need "
        f"{_part(facts.memory_bound_ns, facts)} at the measured bandwidth{rate}."
    )


def _memory_utilisation(facts: Facts) -> Said:
    if facts.accessed is None:
        return None
    said = (
        f"NVML's memory utilisation reads {format_percent(facts.accessed)}: for so much of the time some access was "
        "made, however few bytes it moved."
    )
    dram = facts.dram_active
    return said if dram is None else f"{said} The counter of DRAM traffic saw {format_percent(dram)} of its bandwidth."


def _copies(facts: Facts) -> Said:
    if facts.copied_bytes is None or facts.pieces is None:
        return None
    if not facts.copied_bytes:
        return "No byte crosses between host and device in a call: inputs and outputs stay on the GPU."
    return (
        f"Copies between host and device carry {format_bytes(facts.copied_bytes)} a call. The part of their time that "
        f"no kernel covers is {_part(facts.pieces.exposed_copies, facts)}."
    )


def _idle(facts: Facts) -> Said:
    if facts.pieces is None:
        return None
    return f"With neither work nor a copy to do, the device is idle for {_part(facts.pieces.idle, facts)}."


def _kernels(facts: Facts) -> Said:
    if not facts.kernels or facts.kernel_ns is None:
        return None
    count = f"{facts.kernels:,.0f} kernel{'' if facts.kernels == 1 else 's'}"
    empty = f"; an empty one takes {format_ns(facts.empty_kernel_ns)}" if facts.empty_kernel_ns else ""
    return f"A call launches {count}, whose median takes {format_ns(facts.kernel_ns)}{empty}."


def _hidden_launches(facts: Facts) -> Said:
    if facts.kernel_ns is None:
        return None
    return "A launch costs nothing that counts while the device still works on what was launched before."


def _work(facts: Facts) -> Said:
    if facts.pieces is None:
        return None
    pieces = facts.pieces
    work_ns = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
    return f"Kernels are at work for {_part(work_ns, facts)}."


def _larger_bound(facts: Facts) -> Said:
    """Left out where the sums over all nodes do not tell the same as the shares, which go node by node."""
    compute_ns, memory_ns, shares = facts.compute_bound_ns, facts.memory_bound_ns, facts.shares
    if not compute_ns or not memory_ns:
        return None
    if (compute_ns > memory_ns) != ((shares["compute"] or 0.0) > (shares["memory"] or 0.0)):
        return None
    return (
        "Every kernel both computes and moves bytes; what needs longer limits it. At the measured ceilings the "
        f"arithmetic of all nodes takes {format_ns(compute_ns)} and their bytes {format_ns(memory_ns)}."
    )


def _two_roads(facts: Facts) -> Said:
    if not facts.copied_bytes:
        return "Device memory (DRAM) and PCIe are two roads: DRAM feeds the kernels, PCIe links the GPU to the host."
    return (
        "A copy between host and device takes another road than a kernel's reads: PCIe, which is slower than the GPU's "
        f"own memory (DRAM). {format_bytes(facts.copied_bytes)} cross it in a call."
    )


def _not_launching(facts: Facts) -> Said:
    return "The kernels do wait, yet not for launches: they wait for data that copies have still to bring."


def _between_nodes(facts: Facts) -> Said:
    if facts.pieces is None:
        return None
    return f"Between the nodes, ONNX Runtime itself takes {_part(facts.pieces.host, facts)}."


def _busy_core(facts: Facts) -> Said:
    return "A core that the system shows as busy may be computing, waiting for memory, or stepping from node to node."


_WRONG: Final[dict[tuple[str, str], Refutation]] = {
    ("launch", "compute"): lambda f: (
        [_busy_core(f), _between_nodes(f), _arithmetic_needs(f)] if f.kind == "cpu"
        else [_utilisation(f), _arithmetic_needs(f), _kernels(f)]
    ),
    ("launch", "memory"): lambda f: (
        [_bytes_need(f), _between_nodes(f)] if f.kind == "cpu" else [_memory_utilisation(f), _bytes_need(f)]
    ),
    ("launch", "pcie"): lambda f: [_copies(f), _idle(f)],
    ("compute", "memory"): lambda f: [_larger_bound(f), _memory_utilisation(f)],
    ("compute", "pcie"): lambda f: [_two_roads(f), _copies(f), _work(f)],
    ("compute", "launch"): lambda f: (
        [_between_nodes(f)] if f.kind == "cpu" else [_kernels(f), _hidden_launches(f), _idle(f)]
    ),
    ("memory", "compute"): lambda f: (
        [_busy_core(f), _larger_bound(f)] if f.kind == "cpu" else [_utilisation(f), _larger_bound(f)]
    ),
    ("memory", "pcie"): lambda f: [_two_roads(f), _copies(f), _bytes_need(f)],
    ("memory", "launch"): lambda f: (
        [_between_nodes(f)] if f.kind == "cpu" else [_kernels(f), _hidden_launches(f), _idle(f)]
    ),
    ("pcie", "compute"): lambda f: [_utilisation(f), _work(f), _arithmetic_needs(f)],
    ("pcie", "memory"): lambda f: [_two_roads(f), _bytes_need(f), _copies(f)],
    ("pcie", "launch"): lambda f: [_not_launching(f), _idle(f), _copies(f)],
}  # fmt: skip

_RIGHT: Final[dict[str, Refutation]] = {
    "compute": lambda f: [_larger_bound(f), _arithmetic_needs(f)],
    "memory": lambda f: [_larger_bound(f), _bytes_need(f)],
    "pcie": lambda f: [_copies(f), _work(f)],
    "launch": lambda f: [_between_nodes(f)] if f.kind == "cpu" else [_kernels(f), _idle(f)],
}

_MISTAKEN_CAUSE: Final = {
    "host": "Many launches do not make the host the cause: it is only where the device has run dry before the next "
    "launch is made.",
    "launch latency": "Launch latency is only the gap that stays although the launch was made in time.",
    "under-filled": "Small kernels hold time only while they run: the gaps between them are the host's or launch "
    "latency.",
}
_CAUSE: Final[dict[str, Refutation]] = {
    "host": lambda f: [_kernels(f), "Most of the gaps: the device had run dry before the next launch was made."],
    "launch latency": lambda f: [_kernels(f), "Most of the gaps: the next launch had been made, and was on its way."],
    "under-filled": lambda f: [_kernels(f), "The largest part passes while kernels run that leave the GPU half empty."],
}
assert set(_CAUSE) == set(_MISTAKEN_CAUSE) == set(CAUSES) == set(LAUNCH_CAUSES)


def _unclear(facts: Facts) -> list[Said]:
    return [*_unclear_shares(facts)]


def _unclear_shares(facts: Facts) -> list[str]:
    return [f"{_two_largest(facts)}: neither is large and clear enough to name it alone."]


def _clear(facts: Facts) -> list[str]:
    return [f"{_two_largest(facts)}: the first is large and clear of the second, so that it names the run."]


def _two_largest(facts: Facts) -> str:
    known = {name: share for name, share in facts.shares.items() if share is not None}
    first, second = sorted(known, key=lambda name: -known[name])[:2]
    return f"The largest share holds {format_percent(known[first])} of T, the second {format_percent(known[second])}"


def _share(facts: Facts, name: str) -> str:
    """The share of one class; those that a CPU does not have never come here."""
    return f"In all, the share of {label(name, facts.kind)} is {format_percent(facts.shares.get(name))} of T."


def _part(time_ns: float, facts: Facts) -> str:
    return f"{format_ns(time_ns)}, {format_percent(time_ns / facts.latency_ns)} of T"


def _flop(flops: float) -> str:
    return format_bytes(flops).replace("B", "FLOP")
