"""What is in force and what changed, on pairs of runs recorded on an H200."""

import pandas as pd
import pytest

from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import Block
from workbench.tuning.readback import Evidence, readback

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Changed:
    """A recorded run with some tables replaced."""

    def __init__(self, run, **tables):
        self.run, self.tables = run, tables
        self.manifest, self.graph = run.manifest, run.graph

    def table(self, name, columns=None):
        table = self.tables.get(name)
        return self.run.table(name, columns) if table is None else table[list(columns or table.columns)]


@pytest.fixture
def evidence(h200):
    return lambda name: Evidence.of_run(RunFolder(h200 / name))


def states(found):
    return {change.option: change.state for change in found.changes}


@pytest.mark.parametrize("model", ["launch_device", "resnet50_b1_device"])
def test_a_cuda_graph_is_in_force_and_replays_are_seen(evidence, model):
    graph = evidence(model.replace("_device", "_device_graph") if "launch" in model else "resnet50_b1_graph")
    found = readback({"cuda_graph": True, "binding": "device"}, evidence(model), graph)
    assert states(found) == {"cuda_graph": "in force", "binding": "in force"}
    assert (found.observed.replays, found.observed.nodes, found.observed.kernels) == (True, False, False)
    assert found.changed_nothing is False
    assert any("replays in the traced calls: 0 → 5" in sentence for sentence in found.sentences)


def test_a_cuda_graph_that_never_replays_is_a_finding(evidence):
    base = evidence("launch_device")
    options = {CUDA: {**base.options[CUDA], "enable_cuda_graph": "1"}}
    found = readback({"cuda_graph": True}, base, Evidence(base.providers, options, base.run))
    assert any("none was captured" in finding for finding in found.findings)
    assert found.other_options == []


@pytest.mark.parametrize(
    ("base", "variant", "binding", "said"),
    [
        ("compute_numpy", "compute_device", "device", "h2d from pageable to device 33,554,432 → 0"),
        ("pcie_numpy", "pcie_pinned", "pinned", "h2d from pinned to device 0 → 268,435,456"),
        ("pcie_device", "pcie_numpy", "numpy", "h2d from pageable to device 0 → 268,435,456"),
    ],
)
def test_binding_shows_in_the_copies(evidence, base, variant, binding, said):
    found = readback({"binding": binding}, evidence(base), evidence(variant))
    assert states(found) == {"binding": "in force"}
    assert found.observed.copies is True
    assert any(said in sentence for sentence in found.sentences)


def test_a_binding_that_did_not_come_about(evidence):
    found = readback({"binding": "pinned"}, evidence("pcie_device"), evidence("pcie_numpy"))
    assert states(found) == {"binding": "not in force"}
    assert "asked pinned, read back numpy" in found.findings[0]


def test_an_option_that_is_read_back_otherwise(evidence):
    both = evidence("resnet50_b1_device")
    found = readback({"cuda": {"use_tf32": False, "cudnn_conv_algo_search": "EXHAUSTIVE"}}, both, both)
    assert states(found) == {"cuda.use_tf32": "not in force", "cuda.cudnn_conv_algo_search": "in force"}
    assert "asked 0, read back 1" in found.findings[0]
    assert sum("use_tf32" in sentence for sentence in found.sentences) == 1


def test_an_option_in_force_that_changed_nothing_is_reported(evidence):
    both = evidence("compute_device")
    found = readback({"cuda": {"cudnn_conv_algo_search": "EXHAUSTIVE"}}, both, both)
    assert found.changed_nothing is True
    assert any("those of the base" in finding for finding in found.findings)


def test_session_and_run_options_cannot_be_read_back(evidence):
    both = evidence("compute_device")
    changes = {
        "session": {"graph_optimization_level": "basic", "entries": {"session.intra_op.allow_spinning": "0"}},
        "run": {"entries": {"memory.enable_memory_arena_shrinkage": "gpu:0"}},
        "batch": 8,
        "cuda": {"use_tf32": None},
    }
    found = readback(changes, both, both)
    assert set(states(found).values()) == {"not observable"}
    assert "session.entries.session.intra_op.allow_spinning" in states(found)
    assert found.findings == []


def test_options_that_changed_without_being_asked(evidence):
    base = evidence("compute_device")
    options = {CUDA: {**base.options[CUDA], "use_tf32": "0", "prefer_nhwc": "1"}}
    found = readback({"cuda": {"use_tf32": False}}, base, Evidence(base.providers, options, base.run))
    assert found.other_options == [f"{CUDA}.prefer_nhwc 0 → 1"]
    assert found.changed_nothing is False


def test_a_batch_shows_in_the_kernels(evidence):
    found = readback({"batch": 64}, evidence("resnet50_b1_device"), evidence("resnet50_b64_device"))
    assert found.observed.kernels is True
    assert any("kernel functions went" in sentence for sentence in found.sentences)


def test_two_tracers_spell_the_same_kernels_differently(evidence):
    found = readback({"seed": 1}, evidence("launch_device"), evidence("launch_device_nsys"))
    assert found.observed.kernels is None
    assert found.changed_nothing is None


def test_nodes_that_fell_to_the_cpu_are_named(evidence):
    base = evidence("launch_device")
    nodes = base.run.table("nodes").astype({"name": str, "op_type": str, "provider": str})
    is_matmul = nodes["op_type"] == "MatMul"
    quantised = nodes.assign(
        op_type=nodes["op_type"].where(~is_matmul, "MatMulInteger"),
        name=nodes["name"].where(~is_matmul, nodes["name"] + "_quant"),
        provider=nodes["provider"].where(~is_matmul, CPU),
    )
    variant = Evidence(base.providers, base.options, Changed(base.run, nodes=quantised))
    found = readback({"conversions": ["int8_dynamic"]}, base, variant)
    assert {op: len(names) for op, names in found.observed.on_cpu.items()} == {"MatMulInteger": 150}
    assert any("150 nodes run on the CPU" in finding and "_quant" in finding for finding in found.findings)
    assert any("MatMul 150 → 0, MatMulInteger 0 → 150" in sentence for sentence in found.sentences)
    moved = Changed(base.run, nodes=nodes.assign(provider=nodes["provider"].where(~is_matmul, CPU)))
    back = readback({"provider": "cuda"}, base, Evidence([CPU], {}, moved))
    assert states(back) == {"provider": "not in force"}
    assert any(f"150 nodes moved from {CUDA} to {CPU}" in sentence for sentence in back.sentences)


def test_without_a_run_nothing_is_claimed_to_be_unchanged():
    block = Block("variant", 0, 0, providers=[CUDA, CPU], options={CUDA: {"use_tf32": "0"}})
    both = Evidence.of_block(block)
    found = readback({"cuda": {"use_tf32": False}, "binding": "device"}, both, both)
    assert states(found) == {"cuda.use_tf32": "in force", "binding": "not observable"}
    assert (found.observed, found.changed_nothing) == (None, None)


def test_empty_tables_cannot_be_compared(evidence):
    base = evidence("compute_device")
    empty = {name: base.run.table(name).iloc[:0] for name in ("nodes", "kernels", "latency")}
    assert all(isinstance(table, pd.DataFrame) for table in empty.values())
    found = readback({"batch": 2}, base, Evidence(base.providers, base.options, Changed(base.run, **empty)))
    assert (found.observed.nodes, found.observed.kernels, found.observed.copies) == (None, None, None)
    assert found.changed_nothing is None
