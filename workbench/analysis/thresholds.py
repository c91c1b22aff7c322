"""Every threshold of the diagnosis, with its reason. They are first choices, to be chosen anew on labelled runs."""

from __future__ import annotations

from typing import Final

# A kernel whose grid covers less than half of the multiprocessors leaves most of the GPU empty.
UNDERFILLED_COVERAGE: Final = 0.5
# A kernel below one wave may still use every multiprocessor well (large GEMM tiles are one block each), so it counts
# as under-filled only when it is also far from both ceilings.
UNDERFILLED_WAVES: Final = 1.0
UNDERFILLED_EFFICIENCY: Final = 0.25
# A kernel shorter than twice an empty one spends most of its time starting and ending.
SHORT_KERNEL_FACTOR: Final = 2.0

# A class names the run when it holds at least this much of the time …
LARGE_SHARE: Final = 0.40
# … and leads the second by at least this much; otherwise the two are named together …
CLEAR_LEAD: Final = 0.10
# … if the two hold at least this much between them.
LARGE_PAIR: Final = 0.50

# How far a peak that was measured with one shape may be from what another shape can reach (standard deviation of the
# logarithm): GEMM rates of library kernels vary by some ten per cent with the shape, and cache hits let kernels pass
# the DRAM ceiling. Hardware counters that agree narrow it, counters that disagree or are missing do not.
CEILING_SIGMA: Final = 0.25
CEILING_SIGMA_CORROBORATED: Final = 0.10
CEILING_SIGMA_CONTRADICTED: Final = 0.50
# The rule for under-filled kernels is the roughest one: this much of their time may belong to their bounds instead
# (standard deviation of a half-normal fraction).
UNDERFILLED_SIGMA: Final = 0.25
CONFIDENCE_DRAWS: Final = 1000
# Where T was measured with a profiler attached, the idle time of a call may be this much longer than without it:
# CUPTI stretched whole calls 1.04 to 1.63 times on twelve exported graphs, ONNX Runtime's profiler a chain of 300 tiny
# nodes 4.3 times (both on an H200).
TRACED_STRETCH: Final = 1.63
PROFILED_STRETCH: Final = 4.3

# A prediction and a hardware counter agree within this factor: compulsory traffic is a lower bound of DRAM traffic,
# and a tensor pipe is "active" also while it waits for operands.
COUNTER_FACTOR: Final = 2.0
# Below this utilisation a counter says nothing about what holds the run back.
COUNTER_FLOOR: Final = 0.05

# A difference in speed between the bare and a traced pass above this is said: the two saw different clocks.
SPEED_DIFFERENCE: Final = 0.02

# A node this far above its ceiling is no measurement error; with this much of the node time in such nodes, it is said.
BEYOND_CEILING: Final = 1.3
BEYOND_SHARE: Final = 0.10
