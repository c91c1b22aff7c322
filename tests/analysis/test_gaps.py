"""Idle time by cause, against a twin that walks through every nanosecond."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import intervals as iv
from workbench.analysis.gaps import UNKNOWN_LAUNCH, IdleCauses, split_idle

WINDOW = (0, 60)
works = st.lists(
    st.tuples(st.integers(0, 55), st.integers(1, 12), st.integers(0, 15) | st.none()).map(
        lambda row: (row[0], min(row[0] + row[1], 60), UNKNOWN_LAUNCH if row[2] is None else max(row[0] - row[2], 0))
    ),
    max_size=6,
    unique_by=lambda row: row[0],
)
spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4)


def twin(rows, syncs):
    """Walks the window; every idle moment belongs to the next work, or to none."""
    busy = {t for start, end, _ in rows for t in range(start, end)}
    blocked = {t for start, end in syncs for t in range(start, end)}
    host = waiting = sync = 0
    for moment in range(*WINDOW):
        if moment in busy:
            continue
        begin = moment
        while begin > WINDOW[0] and begin - 1 not in busy:
            begin -= 1
        following = [row for row in rows if row[0] > moment]
        launch = min(following)[2] if following else UNKNOWN_LAUNCH
        if launch != UNKNOWN_LAUNCH and launch <= begin:
            waiting += 1
        elif moment in blocked and (launch == UNKNOWN_LAUNCH or moment < launch):
            sync += 1
        else:
            host += 1
    return IdleCauses(host, waiting, sync)


@given(works, spans)
def test_every_idle_moment_gets_the_twins_cause(rows, syncs):
    starts, ends, launches = (
        (np.array(column, np.int64) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    )
    waiting = iv.union([a for a, _ in syncs], [b for _, b in syncs])
    found = split_idle(WINDOW, iv.union(starts, ends), starts, launches, waiting)
    assert found == twin(rows, syncs)
    assert found.idle_ns == 60 - iv.union(starts, ends).length_ns


def test_one_example_by_hand():
    # work at 10..20 (launched at 4), at 30..40 (launched at 25, after the first had ended), at 45..50 (launched at 35)
    busy = iv.union([10, 30, 45], [20, 40, 50])
    found = split_idle(WINDOW, busy, [10, 30, 45], [4, 25, 35], iv.union([52], [58]))
    # 0..10 host, 20..30 host, 40..45 in time, 50..60: six blocked in a synchronisation, four host
    assert found == IdleCauses(host_ns=24, launch_latency_ns=5, sync_ns=6)
