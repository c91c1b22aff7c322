"""Records captures for tests/data/captures on a GPU host: `python tests/gpu/record_captures.py FOLDER [NAME …]`.

Each is what a user would send: an Nsight Systems export, ONNX Runtime's profile of the same process, a PyTorch trace.
Environment, host, user and path names are removed from the exports. `truth.json` keeps what the files cannot say: when
each profile's clock started.
"""

from __future__ import annotations

import gzip
import json
import lzma
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench import zoo

WORKLOAD = Path(__file__).with_name("capture_workload.py")
NSYS = ["nsys", "profile", "--sample=none", "--cpuctxsw=none", "--force-overwrite=true"]
PRIVATE_TABLES = (
    "TARGET_INFO_SYSTEM_ENV", "META_DATA_CAPTURE", "PROCESSES", "ThreadNames", "ProcessStreams", "ANALYSIS_FILE",
    "OSRT_CALLCHAINS",
)  # fmt: skip
# Columns that refer to names worth keeping; the other strings hold the environment, command lines and paths.
NAMED_BY = {
    "CUPTI_ACTIVITY_KIND_KERNEL": ("demangledName", "shortName", "mangledName"),
    "CUPTI_ACTIVITY_KIND_RUNTIME": ("nameId",),
    "CUDA_GRAPH_NODE_EVENTS": ("nameId",),
    "NVTX_EVENTS": ("textId",),
    "OSRT_API": ("nameId",),
}
# name: arguments of the workload, options of nsys
CAPTURES = {
    "launch_graph_nodes": ("launch.onnx --device --graph", "--trace=cuda,nvtx --cuda-graph-trace=node"),
    "launch_graph_whole": ("launch.onnx --device --graph", "--trace=cuda,nvtx"),
    "resnet50_joined": ("resnet50.onnx --device", "--trace=cuda,nvtx,osrt"),
    "launch_threads": ("launch.onnx --threads 3 --calls 6", "--trace=cuda,nvtx"),
    "two_sessions": ("launch.onnx memory.onnx --domain --calls 4", "--trace=cuda,nvtx"),
}

TORCH = """
import sys, timm, torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule
torch.manual_seed(0)
model = timm.create_model("resnet50", pretrained=False).cuda().eval()
images = torch.randn(1, 3, 224, 224)
def keep(found): found.export_chrome_trace(sys.argv[1])
with torch.inference_mode(), profile(
    activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True,
    schedule=schedule(wait=0, warmup=3, active=4, repeat=1), on_trace_ready=keep,
) as watched:
    for _ in range(7):
        with record_function("inference"):
            model(images.cuda()).cpu()
        watched.step()
"""


def strip(export: Path) -> set[int]:
    """Remove what tells of the machine and its user; returns the ids of the strings that were kept."""
    with closing(sqlite3.connect(export)) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in tables.intersection(PRIVATE_TABLES):
            database.execute(f"DELETE FROM {name}")
        if "DIAGNOSTIC_EVENT" in tables:
            database.execute("DELETE FROM DIAGNOSTIC_EVENT WHERE text LIKE '%/%'")
        kept = "EXPORT_SCHEMA%", "%PRODUCT%"
        database.execute("DELETE FROM META_DATA_EXPORT WHERE name NOT LIKE ? AND name NOT LIKE ?", kept)
        database.execute("UPDATE TARGET_INFO_GPU SET uuid = ''")
        columns = [(table, column) for table in tables.intersection(NAMED_BY) for column in NAMED_BY[table]]
        named = " UNION ".join(f"SELECT {column} AS named FROM {table}" for table, column in columns)
        database.execute(f"DELETE FROM StringIds WHERE NOT EXISTS (SELECT 1 FROM ({named}) WHERE named = id)")
        database.commit()
        database.execute("VACUUM")
        return {row[0] for row in database.execute("SELECT id FROM StringIds")}


def strip_folder(folder: Path, strings: set[int]) -> None:
    """The same for a folder of Parquet files."""
    private = [*PRIVATE_TABLES, "META_DATA_EXPORT", "DIAGNOSTIC_EVENT", "TARGET_INFO_GPU"]
    for file in folder.glob("*.parquet"):
        if file.stem in private or file.stem.startswith("ENUM_"):
            file.unlink()
    file = folder / "StringIds.parquet"
    table = pq.read_table(file)
    pq.write_table(table.filter(pc.is_in(table["id"], pa.array(list(strings), table["id"].type))), file)


def pack(source: Path, target: Path) -> None:
    target.write_bytes(lzma.compress(source.read_bytes(), preset=9))


def record(name: str, out: Path, work: Path) -> dict:
    arguments, options = CAPTURES[name]
    report = work / name
    watched = [sys.executable, str(WORKLOAD), *arguments.split(), "--profile", "p"]
    command = [*NSYS, *options.split(), f"--output={report}", *watched]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=200, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{done.returncode}: {done.stdout[-1500:]} {done.stderr[-1500:]}")
    said = json.loads(lines[-1])
    export = work / f"{name}.sqlite"
    subprocess.run(
        ["nsys", "export", "--type=sqlite", "--force-overwrite=true", f"--output={export}", f"{report}.nsys-rep"],
        check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    strings = strip(export)
    pack(export, out / f"nsight_{name}.sqlite.xz")
    profiles = []
    for index, profile in enumerate(said["profiles"]):
        packed = out / f"ort_profile_{name}_{index}.json.xz"
        pack(work / profile, packed)
        start_ns = said["starts_ns"][index]
        profiles.append({"file": packed.name.removesuffix(".xz"), "written_as": profile, "start_ns": start_ns})
    if name == "launch_graph_nodes":
        made = work / "nsight_launch_graph_nodes_parquet"
        subprocess.run(
            ["nsys", "export", "--type=parquetdir", "--force-overwrite=true", f"--output={made}", f"{report}.nsys-rep"],
            check=True, capture_output=True, timeout=200,
        )  # fmt: skip
        strip_folder(made, strings)
        with tarfile.open(out / f"{made.name}.tar.xz", "w:xz") as archive:
            archive.add(made, made.name)
    return {"profiles": profiles}


def record_torch(out: Path, work: Path) -> None:
    trace = work / "torch.json"
    subprocess.run([sys.executable, "-c", TORCH, str(trace)], check=True, timeout=200)
    (out / "kineto_resnet50.json.gz").write_bytes(gzip.compress(trace.read_bytes(), 9, mtime=0))


def main(folder: str, *wanted: str) -> int:
    out = Path(folder).resolve()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    zoo.write("launch", work / "launch.onnx", nodes=100)
    zoo.write("memory", work / "memory.onnx", elements=1 << 22)
    (work / "resnet50.onnx").write_bytes(zoo.resnet50_path().read_bytes())
    truth, failures = {}, 0
    for name in [*CAPTURES, "torch"]:
        if wanted and name not in wanted:
            continue
        try:
            if name == "torch":
                record_torch(out, work)
            else:
                truth[name] = record(name, out, work)
            print(name, "done", flush=True)
        except Exception as error:
            failures += 1
            print(name, "FAILED", type(error).__name__, error, flush=True)
    (out / "truth.json").write_text(json.dumps(truth, indent=1))
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
