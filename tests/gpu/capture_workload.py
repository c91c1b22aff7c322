"""A plain ONNX Runtime program for tools to watch: `python capture_workload.py MODEL [options]`.

It marks its phases `create`, `warm-up` and `measure` and every call `run` (payload: the call's index) with NVTX, as a
user's own script would, and prints one JSON object: where each session's profile lies and when its clock started.
"""

from __future__ import annotations

import argparse
import json
import threading

import numpy as np
import nvtx
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


def feeds_of(session: ort.InferenceSession, size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for each in session.get_inputs():
        shape = [n if isinstance(n, int) else (1 if n in {"batch", "N"} else size) for n in each.shape]
        kind = TYPES[each.type]
        feeds[each.name] = np.ones(shape, kind) if kind is np.int64 else rng.standard_normal(shape).astype(kind)
    return feeds


def caller(session: ort.InferenceSession, feeds: dict[str, np.ndarray], device: bool):
    if not device:
        return lambda: session.run(None, feeds)
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    reference = session.run(None, feeds) if not session.get_outputs()[0].shape else None
    for each in session.get_outputs():
        shape = [n if isinstance(n, int) else 1 for n in each.shape] if reference is None else reference[0].shape
        value = ort.OrtValue.ortvalue_from_shape_and_type(shape, TYPES[each.type], "cuda", 0)
        binding.bind_ortvalue_output(each.name, value)
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="+")
    parser.add_argument("--provider", default="CUDAExecutionProvider")
    parser.add_argument("--device", action="store_true", help="bind inputs and outputs on the device")
    parser.add_argument("--graph", action="store_true", help="capture and replay a CUDA graph")
    parser.add_argument("--profile", help="prefix of ONNX Runtime's profiles")
    parser.add_argument("--threads", type=int, default=1, help="threads that call at once")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--size", type=int, default=16, help="every dimension without a number but the batch")
    parser.add_argument("--domain", action="store_true", help="mark the calls in an NVTX domain of their own")
    given = parser.parse_args()
    if given.provider == "CUDAExecutionProvider":
        ort.preload_dlls()
    domain = "inference" if given.domain else None
    sessions, calls = [], []
    for path in given.model:
        with nvtx.annotate("create"):
            options = ort.SessionOptions()
            if given.profile:
                options.enable_profiling, options.profile_file_prefix = True, given.profile
            chosen = {"enable_cuda_graph": "1"} if given.graph else {}
            session = ort.InferenceSession(path, options, providers=[(given.provider, chosen)])
        sessions.append(session)
        calls.append(caller(session, feeds_of(session, given.size), given.device))
    with nvtx.annotate("warm-up"):
        for call in calls:
            for _ in range(3):
                call()

    def work() -> None:
        for index in range(given.calls):
            for call in calls:
                with nvtx.annotate("run", payload=index, domain=domain):
                    call()

    with nvtx.annotate("measure"):
        if given.threads == 1:
            work()
        else:
            threads = [threading.Thread(target=work) for _ in range(given.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    never_closed = nvtx.start_range("never closed")  # tools must cope with it
    starts = [session.get_profiling_start_time_ns() for session in sessions] if given.profile else []
    files = [session.end_profiling() for session in sessions] if given.profile else []
    print(json.dumps({"profiles": files, "starts_ns": starts, "open": str(never_closed)}))


if __name__ == "__main__":
    main()
