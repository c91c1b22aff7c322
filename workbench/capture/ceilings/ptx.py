"""PTX of the three kernels that the limits of the device are measured with.

`empty` does nothing. `ex2` and `fma` keep one arithmetic unit busy: each thread works on `CHAINS`
values that do not depend on one another, so that the latency of an instruction is hidden, and
stores their sum, so that nothing can be optimised away. PTX rather than CUDA C++, because the driver
compiles it for the device at hand and no compiler has to be installed.
"""

from __future__ import annotations

from typing import Final

CHAINS: Final = 8
UNROLLED: Final = 32  # steps per turn of the loop: its three own instructions are then about 1 % of the 256
TURNS: Final = {"ex2": 128, "fma": 1024}  # a few milliseconds on any GPU with tensor cores

# The steps keep the values bounded. 2^-x tends to 0.64, and its negation is an operand modifier of the machine
# instruction. 1 - 0.9999 x changes its value at every step, since bits that never switch let the clocks rise.
_STEPS: Final = {
    "ex2": ("neg.f32 %y{k}, %x{k};", "ex2.approx.ftz.f32 %x{k}, %y{k};"),
    "fma": ("fma.rn.f32 %x{k}, %x{k}, %factor, %one;",),
}

# sm_75 (Turing) is the oldest architecture of CUDA 13, and PTX 6.3 the first version that knows it
_HEADER: Final = ".version 6.3\n.target sm_75\n.address_size 64\n"

_EMPTY: Final = ".visible .entry empty()\n{ ret; }\n"

_THROUGHPUT: Final = """.visible .entry {name}(.param .u64 sums)
{{
  .reg .f32 %x<{chains}>;
  .reg .f32 %y<{chains}>;
  .reg .f32 %factor, %one, %seed;
  .reg .u32 %thread, %block, %width, %turn;
  .reg .u64 %address, %offset;
  .reg .pred %more;
  mov.u32 %thread, %tid.x;
  mov.u32 %block, %ctaid.x;
  mov.u32 %width, %ntid.x;
  cvt.rn.f32.u32 %seed, %thread;
  mov.f32 %factor, 0fBF7FF972;
  mov.f32 %one, 0f3F800000;
  {start}
  mov.u32 %turn, {turns};
again:
  .pragma "nounroll";
  {steps}
  sub.u32 %turn, %turn, 1;
  setp.ne.u32 %more, %turn, 0;
  @%more bra again;
  {add}
  mad.lo.u32 %thread, %block, %width, %thread;
  mul.wide.u32 %offset, %thread, 4;
  ld.param.u64 %address, [sums];
  add.u64 %address, %address, %offset;
  st.global.f32 [%address], %x0;
  ret;
}}
"""


def _throughput_kernel(name: str) -> str:
    chains = range(CHAINS)
    step = "\n  ".join(line.format(k=k) for k in chains for line in _STEPS[name])
    start = ["mov.f32 %x0, %seed;", *(f"add.f32 %x{k}, %x{k - 1}, %one;" for k in chains[1:])]
    return _THROUGHPUT.format(
        name=name,
        chains=CHAINS,
        turns=TURNS[name],
        start="\n  ".join(start),
        steps="\n  ".join([step] * UNROLLED),
        add="\n  ".join(f"add.f32 %x0, %x0, %x{k};" for k in chains[1:]),
    )


def module_text() -> str:
    """The PTX module with the kernels `empty()`, `ex2(float *sums)` and `fma(float *sums)`.

    `sums` takes one float32 per thread of the launch.
    """
    return _HEADER + _EMPTY + "".join(_throughput_kernel(name) for name in _STEPS)


def operations_per_thread(name: str) -> int:
    """How many `ex2` or `fma` instructions one thread of that kernel executes."""
    return TURNS[name] * UNROLLED * CHAINS
