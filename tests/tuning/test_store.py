"""Blocks and results come back from disk as they were; what is damaged or missing is said in a sentence."""

import errno
import json
import struct
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import DiskFullError, RunFolderError
from workbench.tuning import store
from workbench.tuning.blocks import Block
from workbench.tuning.store import BLOCKS, load_blocks, load_result, save_blocks, save_result

INT64 = st.integers(-(2**63), 2**63 - 1)
SERIES = st.lists(INT64, max_size=5).map(lambda values: np.array(values, np.int64))
STEPS = st.dictionaries(st.text(), INT64, max_size=3)
PEAK = st.none() | INT64
BLOCK = st.builds(
    Block,
    arm=st.text(),
    round=st.integers(0, 2**31 - 1),
    position=st.integers(0, 2**31 - 1),
    starts_ns=SERIES,
    durations_ns=SERIES,
    calls_per_s=st.floats(),
    batch=INT64,
    warmup_calls=INT64,
    steps_ns=STEPS,
    again_ns=STEPS,
    peak_device_bytes=PEAK,
    peak_host_bytes=PEAK,
    providers=st.lists(st.text(), max_size=2),
    options=st.dictionaries(st.text(), st.dictionaries(st.text(), st.text(), max_size=2), max_size=2),
    disturbances=st.lists(st.text(), max_size=2),
    error=st.none() | st.tuples(st.text(), st.text()),
)
TWO = [Block("base", 0, 0, np.arange(9), np.arange(9)), Block("graph", 0, 1, error=("ModelError", "No such file."))]


def bits(value):
    if isinstance(value, np.ndarray):
        return value.dtype, value.tobytes()
    return struct.pack("d", value) if isinstance(value, float) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BLOCK, max_size=4))
def test_blocks_come_back_bit_by_bit(tmp_path, blocks):
    save_blocks(tmp_path, blocks)
    back = load_blocks(tmp_path)
    assert len(back) == len(blocks)
    for before, after in zip(blocks, back, strict=True):
        for each in fields(Block):
            assert bits(getattr(after, each.name)) == bits(getattr(before, each.name)), each.name
    assert [path.name for path in tmp_path.iterdir()] == [BLOCKS]


def test_the_order_of_the_steps_is_kept(tmp_path):
    steps = {"session": 3, "import": 1, "first call": 2}
    save_blocks(tmp_path, [Block("base", 0, 0, steps_ns=steps)])
    assert list(load_blocks(tmp_path)[0].steps_ns) == list(steps)


def test_what_measured_into_a_folder_that_is_gone_does_not_come_back(tmp_path):
    save_blocks(tmp_path, [Block("base", 0, 0, outputs=tmp_path / "outputs.npz")])
    assert load_blocks(tmp_path)[0].outputs is None


def test_missing_blocks(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no readable blocks\.parquet: measure again"):
        load_blocks(tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_blocks(tmp_path, share):
    save_blocks(tmp_path, TWO)
    whole = (tmp_path / BLOCKS).read_bytes()
    (tmp_path / BLOCKS).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RunFolderError, match="holds no readable"):
        load_blocks(tmp_path)


def without_rounds(table):
    return table.drop_columns("round")


def with_null_arm(table):
    return table.set_column(0, "arm", pa.array(["base", None]))


def with_words_for_times(table):
    return table.set_column(table.column_names.index("starts_ns"), "starts_ns", pa.array(["a", "b"]))


def with_broken_json(table):
    return table.set_column(table.column_names.index("steps_ns"), "steps_ns", pa.array(["{}", "{"]))


def with_unknown_call(table):
    return table.set_column(table.column_names.index("starts_ns"), "starts_ns", pa.array([[1, None], []]))


@pytest.mark.parametrize(
    "change", [without_rounds, with_null_arm, with_words_for_times, with_broken_json, with_unknown_call]
)
def test_another_table_in_the_place_of_the_blocks(tmp_path, change):
    save_blocks(tmp_path, TWO)
    pq.write_table(change(pq.read_table(tmp_path / BLOCKS)), tmp_path / BLOCKS)
    with pytest.raises(RunFolderError, match="holds no readable"):
        load_blocks(tmp_path)


def test_a_full_disk_is_said_and_leaves_the_former_blocks(tmp_path, monkeypatch):
    def full(*given, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_blocks(tmp_path, TWO)
    monkeypatch.setattr(store.pq, "write_table", full)
    with pytest.raises(DiskFullError):
        save_blocks(tmp_path, [])
    assert len(load_blocks(tmp_path)) == 2


@dataclass(frozen=True)
class Result:
    name: str
    by_round: dict[int, float] = field(default_factory=dict)
    why: tuple[str, str] | None = None


def test_a_result_comes_back_and_is_json(tmp_path):
    result = Result("μ", {3: 0.1 + 0.2}, ("a", "b"))
    save_result(tmp_path / "result.json", Result, result)
    assert load_result(tmp_path / "result.json", Result) == result
    assert json.loads((tmp_path / "result.json").read_text())["by_round"] == {"3": 0.1 + 0.2}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_missing_result(tmp_path):
    with pytest.raises(RunFolderError, match="is no result of `tune`"):
        load_result(tmp_path / "result.json", Result)


@pytest.mark.parametrize(
    ("damage", "place"),
    [("{", "''"), ('{"by_round": {}}', "'name'"), ('{"name": "a", "by_round": {"0": []}}', "'by_round.0'")],
)
def test_a_damaged_result_says_where(tmp_path, damage, place):
    (tmp_path / "result.json").write_text(damage)
    with pytest.raises(RunFolderError, match=f"is damaged at {place}"):
        load_result(tmp_path / "result.json", Result)
