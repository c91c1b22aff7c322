"""Tables written by hand, with the types that a run folder gives them."""

import pyarrow as pa

from workbench.runs.manifest import Ceilings, DeviceInfo
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table

PASS = "activity"
H200 = DeviceInfo(kind="cuda", name="H200", compute_capability="9.0", sm_count=132)
CEILINGS = Ceilings(
    flops_per_s={"fp:float32": 1e12, "tensor:tf32": 1e13, "special:float32": 1e12},
    memory_bytes_per_s=1e12,
    shortest_kernel_ns=1000.0,
)


class Given:
    """A run of given rows: `Given(kernels=[{"start_ns": 1, …}, …])`; each row may leave out what it does not need."""

    graph = None

    def __init__(self, pass_name=PASS, **tables):
        self.asked = []
        self._tables = {}
        for name, rows in tables.items():
            columns = {field.name: [row.get(field.name) for row in rows] for field in TABLES[name]}
            columns["pass"] = [row.get("pass", pass_name) for row in rows]
            typed = {field.name: pa.array(columns[field.name], field.type) for field in TABLES[name]}
            self._tables[name] = to_table(name, typed).to_pandas()

    def table(self, name, columns=None):
        self.asked.append((name, columns))
        table = self._tables.get(name)
        table = TABLES[name].empty_table().to_pandas() if table is None else table
        return table if columns is None else table[list(columns)]


def call(number, start, end, **more):
    return {"call": number, "phase": "measured", "start_ns": start, "duration_ns": end - start, **more}


def kernel(number, start, end, correlation, **more):
    grid = dict.fromkeys(("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers"), 1)
    shared = {"static_shared_bytes": 0, "dynamic_shared_bytes": 0, "device": 0, "stream": 7, "name": "k"}
    times = {"call": number, "start_ns": start, "end_ns": end, "correlation": correlation}
    return {**grid, **shared, **times, **more}


def copy(number, start, end, correlation, kind, **more):
    times = {"call": number, "start_ns": start, "end_ns": end, "correlation": correlation}
    return {**times, "device": 0, "stream": 7, "kind": kind, "bytes": 64, **more}


def launch(start, end, correlation, **more):
    return {
        "start_ns": start,
        "end_ns": end,
        "thread": 1,
        "name": "cudaLaunchKernel",
        "correlation": correlation,
        **more,
    }


def node(number, start, duration, index, **more):
    """A ReLU over 1,000 floats: 8,000 bytes and 1,000 flops."""
    shapes = '[{"float":[1000]}]'
    named = {"call": number, "node_index": index, "name": f"n{index}", "op_type": "Relu", "provider": "CUDA"}
    sizes = {"activation_bytes": 4000, "parameter_bytes": 0, "output_bytes": 4000}
    times = {"start_ns": start, "duration_ns": duration, "thread": 1}
    return {**named, **times, **sizes, "input_shapes": shapes, "output_shapes": shapes, **more}
