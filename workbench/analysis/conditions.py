"""What disturbed the latency pass: throttling, moving clocks, other processes on the GPU. One sentence each."""

from __future__ import annotations

from typing import Final

from workbench.analysis.tables import Tables, measured_calls, rows_of

# nvml.h, nvmlClocksEventReason…: what holds the clocks below what was asked for, idling left out.
THROTTLE_REASONS: Final = {
    0x04: "the power cap",
    0x08: "a hardware slow-down",
    0x20: "software thermal limits",
    0x40: "the hardware's thermal limit",
    0x80: "the external power brake",
}
CLOCK_DRIFT: Final = 0.05  # of the median clock; one step of an H200's clock is 15 MHz of 1,980, under 1 %
FEWEST_SAMPLES: Final = 5


def disturbances(run: Tables) -> list[str]:
    """Sentences on what NVML saw while the latency pass measured; empty when all was quiet or nothing was sampled."""
    calls = measured_calls(run, "latency")
    samples = rows_of(run, "samples", "latency")
    if not len(calls) or not len(samples):
        return []
    begin, end = calls["start_ns"].iloc[0], (calls["start_ns"] + calls["duration_ns"]).iloc[-1]
    during = samples[samples["time_ns"].between(begin, end)]
    values = {str(name): group["value"] for name, group in during.groupby("metric")}
    said = []
    if "clock_event_reasons_mask" in values:
        masks = values["clock_event_reasons_mask"].astype("int64")
        for bit, reason in THROTTLE_REASONS.items():
            share = float(((masks & bit) > 0).mean())
            if share:
                said.append(f"The clocks were held down by {reason} in {100 * share:.0f} % of the samples.")
    clock = values.get("sm_clock_mhz")
    if clock is not None and len(clock) >= FEWEST_SAMPLES:
        low, high = clock.quantile([0.05, 0.95])
        if high - low > CLOCK_DRIFT * clock.median():
            said.append(f"The SM clock moved between {low:.0f} and {high:.0f} MHz while the latency was measured.")
    processes = values.get("compute_processes_count")
    if processes is not None and (processes > 1).any():
        said.append(f"Up to {int(processes.max()) - 1} other process(es) used the GPU while the latency was measured.")
    return said
