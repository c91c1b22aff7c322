"""Idle time by cause, against a twin that walks through every nanosecond."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import intervals as iv
from workbench.analysis.gaps import UNKNOWN_LAUNCH, split_idle

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
    return host, waiting, sync


def numbers(found):
    return tuple(int(each.item()) for each in (found.host_ns, found.launch_latency_ns, found.sync_ns))


@given(works, spans)
def test_every_idle_moment_gets_the_twins_cause(rows, syncs):
    starts, ends, launches = (
        (np.array(column, np.int64) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    )
    waiting = iv.union([a for a, _ in syncs], [b for _, b in syncs])
    found = split_idle(WINDOW, iv.union(starts, ends), starts, launches, waiting)
    assert numbers(found) == twin(rows, syncs)
    assert found.idle_ns.item() == 60 - iv.union(starts, ends).length_ns


def test_one_example_by_hand():
    # work at 10..20 (launched at 4), at 30..40 (launched at 25, after the first had ended), at 45..50 (launched at 35)
    busy = iv.union([10, 30, 45], [20, 40, 50])
    found = split_idle(WINDOW, busy, [10, 30, 45], [4, 25, 35], iv.union([52], [58]))
    # 0..10 host, 20..30 host, 40..45 in time, 50..60: six blocked in a synchronisation, four host
    assert numbers(found) == (24, 5, 6)


@given(st.lists(st.tuples(works, st.integers(0, 3)), min_size=1, max_size=4), spans)
def test_windows_taken_together_equal_each_taken_alone(calls, syncs):
    waiting = iv.union([a for a, _ in syncs], [b for _, b in syncs])
    shift, windows, rows, alone = 0, [], [], []
    for mine, distance in calls:
        shift += distance
        window = (shift, shift + 60)
        moved = [tuple(at if at == UNKNOWN_LAUNCH else at + shift for at in row) for row in mine]
        starts, ends, launches = np.array(moved, np.int64).reshape(-1, 3).T
        alone.append(numbers(split_idle(window, iv.union(starts, ends), starts, launches, waiting)))
        windows.append(window)
        rows += moved
        shift += 60
    starts, ends, launches = np.array(rows, np.int64).reshape(-1, 3).T
    edges = tuple(np.array(windows).T)
    found = split_idle(edges, iv.union(starts, ends), starts, launches, waiting)
    columns = (found.host_ns.tolist(), found.launch_latency_ns.tolist(), found.sync_ns.tolist())
    assert list(zip(*columns, strict=True)) == alone
