"""Objectives and constraints: the words that users write, and the best candidate under them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.tuning.objective import Constraint, Objective, best, total_miss


@pytest.mark.parametrize(
    ("text", "metric", "unit", "smaller"),
    [
        ("latency", "latency:p50", "ns", True),
        ("latency:p99", "latency:p99", "ns", True),
        ("p99.9", "latency:p99.9", "ns", True),
        ("throughput", "throughput", "items/s", False),
        ("memory", "memory", "bytes", True),
        ("host-memory", "host-memory", "bytes", True),
        ("cold-start", "cold-start", "ns", True),
    ],
)
def test_objectives(text, metric, unit, smaller):
    parsed = Objective.parse(text).metric
    assert (parsed.name, parsed.unit, parsed.smaller_is_better) == (metric, unit, smaller)


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("p99<10ms", "latency:p99", 10e6),
        (" p50 <= 500 us ", "latency:p50", 500e3),
        ("latency<1.5s", "latency:p50", 1.5e9),
        ("memory<4GB", "memory", 4e9),
        ("memory<4GiB", "memory", 4 * 2**30),
        ("host-memory<512MiB", "host-memory", 512 * 2**20),
        ("throughput>500", "throughput", 500),
        ("throughput>=2e3items/s", "throughput", 2000),
        ("cold-start<2s", "cold-start", 2e9),
    ],
)
def test_constraints(text, metric, limit):
    parsed = Constraint.parse(text)
    assert (parsed.metric.name, parsed.limit) == (metric, limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p99", "is no constraint"),
        ("p99<", "is no constraint"),
        ("p99=10ms", "is no constraint"),
        ("", "is no constraint"),
        ("p99<10", "has no unit of latency:p99: known are ns, us, µs, ms, s"),
        ("p99<10GB", "has GB unit of latency:p99"),
        ("memory<4", "known are B, kB, MB, GB, KiB, MiB, GiB"),
        ("trhoughput>5", "did you mean 'throughput'"),
        ("p99>10ms", "write p99<10ms"),
        ("throughput<500", "write throughput>500"),
        ("p99<0ms", "above 0"),
        ("p99<-1ms", "above 0"),
        ("p99<1e999ms", "above 0"),
        ("p99<1.2.3ms", "above 0"),
        ("p100<1ms", "between 0 and 100"),
    ],
)
def test_nonsense_is_answered_in_a_sentence(text, said):
    with pytest.raises(ConfigError) as caught:
        Constraint.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_objective_names_the_known_ones():
    with pytest.raises(ConfigError, match="cold-start, host-memory, latency, latency:p99, memory, throughput"):
        Objective.parse("zzz")


def test_misses_are_relative_to_the_limit_in_the_bad_direction():
    upper, lower = Constraint.parse("p99<10ms"), Constraint.parse("throughput>500")
    assert upper.miss(12e6) == pytest.approx(0.2)
    assert upper.miss(10e6) == upper.miss(1.0) == 0
    assert lower.miss(400.0) == pytest.approx(0.2)
    assert lower.miss(500.0) == lower.miss(1e9) == 0
    assert upper.miss(None) == upper.miss(math.nan) == math.inf


def candidate(p50_ns, items_per_s, memory_bytes=None):
    return {"latency:p50": p50_ns, "throughput": items_per_s, "memory": memory_bytes}


def test_the_best_keeps_the_limit():
    some = [candidate(1e6, 100.0), candidate(5e6, 900.0), candidate(2e6, 300.0)]
    assert best(some, Objective.parse("throughput")).index == 1
    found = best(some, Objective.parse("throughput"), [Constraint.parse("latency<3ms")])
    assert (found.index, found.feasible) == (2, True)
    assert best(some, Objective.parse("latency"), [Constraint.parse("throughput>200")]).index == 2


def test_the_closest_is_told_with_every_miss():
    limits = [Constraint.parse("latency<1ms"), Constraint.parse("throughput>1000")]
    some = [candidate(1.5e6, 1100.0), candidate(1.2e6, 900.0), candidate(0.5e6, 100.0)]
    found = best(some, Objective.parse("throughput"), limits)  # total misses 0.5, 0.3 and 0.9
    assert (found.index, found.feasible) == (1, False)
    assert "latency<1ms by 20 %" in found.sentence
    assert "throughput>1000 by 10 %" in found.sentence


def test_what_is_not_measured_keeps_no_limit_and_is_no_best():
    limits = [Constraint.parse("memory<4GB")]
    some = [candidate(1e6, 100.0), candidate(3e6, 50.0, 8e9), candidate(None, None, 1e9)]
    assert best(some, Objective.parse("latency"), limits).index == 1
    found = best(some[:1], Objective.parse("latency"), limits)
    assert not found.feasible
    assert "memory was not measured" in found.sentence
    assert best(some[2:], Objective.parse("latency")) is None
    assert best([], Objective.parse("latency")) is None


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1, 1e6)), min_size=1, max_size=12), st.floats(1, 1e9))
def test_no_candidate_beats_the_best(pairs, limit_ns):
    """Whatever the candidates: none keeps the limit and does more, and none is closer when none keeps it."""
    some = [candidate(p50_ns, items_per_s) for p50_ns, items_per_s in pairs]
    limits = [Constraint.parse(f"latency<{limit_ns:.9f}ns")]
    found = best(some, Objective.parse("throughput"), limits)
    kept = [each for each in some if each["latency:p50"] <= limits[0].limit]
    assert found.feasible == bool(kept)
    if kept:
        assert some[found.index]["throughput"] == max(each["throughput"] for each in kept)
    else:
        assert total_miss(some[found.index], limits) == min(total_miss(each, limits) for each in some)
