"""The verdict of a cell, redone with plain arithmetic: T and |K| from the rows, the rest from the report's numbers."""

from statistics import median

import pytest

from workbench.report import facts

GROUPS = {"squeezenet-batch-4": "device", "conv-border-pcie": "pinned"}


@pytest.fixture(params=GROUPS)
def cell(cells_of, request):
    return cells_of(request.param)[GROUPS[request.param]]


def number(text):
    return int(text.replace(",", ""))


def union_ns(intervals):
    """Length of the union, one moment after the other."""
    total, reached = 0, 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def rows(cell, table, pass_):
    found = cell.run.table(table)
    return found[found["pass"] == pass_].to_dict("records")


def test_t_and_device_work_follow_from_the_rows(cell):
    printed = {line.name.split(",")[0]: line for line in facts.arithmetic(cell.situation.diagnosis, "cuda")}
    bare = [row["duration_ns"] for row in rows(cell, "latency", "latency") if row["phase"] == "measured"]
    assert number(printed["T"].used) == round(median(bare))
    calls = [row["call"] for row in rows(cell, "latency", "activity") if row["phase"] == "measured"]
    work = {call: [] for call in calls}
    copies = {call: [] for call in calls}
    for table in ("kernels", "memsets", "copies"):
        for row in rows(cell, table, "activity"):
            kind = copies if row.get("kind") in ("h2d", "d2h") else work
            if row["call"] in kind:
                kind[row["call"]].append((row["start_ns"], row["end_ns"]))
    busy = median(union_ns(each) for each in work.values())
    exposed = median(union_ns(work[call] + copies[call]) - union_ns(work[call]) for call in calls)
    assert number(printed["Device work |K|"].traced) == round(busy)
    assert number(printed["Exposed copies |X| = |C \\ K|"].traced) == round(exposed)


def test_shares_and_verdict_follow_from_the_printed_numbers(cell):
    lines = facts.arithmetic(cell.situation.diagnosis, "cuda")
    used = {line.name: number(line.used) for line in lines}
    traced = {line.name: number(line.traced) for line in lines if line.traced}
    t, work = used["T, the bare median"], "Device work |K|"
    exposed, idle = "Exposed copies |X| = |C \\ K|", "Idle T − |K ∪ C|"
    causes = ("the host came late", "launch latency", "waiting in a synchronisation")
    limits = ("limited by compute", "limited by memory bandwidth", "under-filled", "limit unknown")

    # traced times that sum to less than T are those of a faster machine: they are scaled to T
    scale = max(1.0, t / (traced[work] + traced[exposed] + traced[idle]))
    for name in (work, exposed):
        assert used[name] == pytest.approx(scale * traced[name], abs=2)
    assert used[idle] == pytest.approx(t - used[work] - used[exposed], abs=2)
    for cause in causes:
        assert used[cause] == pytest.approx(used[idle] * traced[cause] / traced[idle], abs=2)
    assert sum(used[limit] for limit in limits) == pytest.approx(used[work], abs=4)

    shares = {
        "compute": used["limited by compute"] / t,
        "memory": used["limited by memory bandwidth"] / t,
        "pcie": used[exposed] / t,
        "launch": (used["the host came late"] + used["launch latency"] + used["under-filled"]) / t,
    }
    first, second = sorted(shares, key=lambda name: -shares[name])[:2]
    lead = shares[first] - shares[second]
    verdict = "inconclusive"
    if shares[first] >= 0.40 and lead >= 0.10:
        verdict = first
    elif shares[first] + shares[second] >= 0.50 and lead < 0.10:
        verdict = "+".join(sorted((first, second)))
    assert verdict == cell.verdict
    assert verdict == {"squeezenet-batch-4-device": "launch", "conv-border-pcie-pinned": "compute+pcie"}[cell.name]
