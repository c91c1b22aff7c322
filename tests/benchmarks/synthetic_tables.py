"""The tables, constant columns and names of a synthetic Nsight Systems export (SQLite schema 3.20.3, no index)."""

from __future__ import annotations

import sqlite3
from itertools import product

import numpy as np

EPOCH_NS = 1_795_262_550_494_948_474
PROCESS = 4242
GLOBAL_PID = (1 << 48) | (PROCESS << 24)
GLOBAL_TID = GLOBAL_PID | PROCESS
COMPUTE_STREAM, COPY_STREAM = 13, 14

_DEVICE_COLUMNS = """start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
    globalPid INTEGER"""

SCHEMA = f"""
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
CREATE TABLE TARGET_INFO_CUDA_CONTEXT_INFO (nullStreamId INTEGER, hwId INTEGER, vmId INTEGER, processId INTEGER,
    deviceId INTEGER, contextId INTEGER, parentContextId INTEGER, isGreenContext INTEGER);
CREATE TABLE ThreadNames (nameId INTEGER NOT NULL, priority INTEGER, globalTid INTEGER);
CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT);
CREATE TABLE TARGET_INFO_GPU (vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT,
    isDiscrete INTEGER, l2CacheSize INTEGER, totalMemory INTEGER, memoryBandwidth INTEGER, clockRate INTEGER,
    smCount INTEGER, uuid TEXT, chipName TEXT, threadsPerWarp INTEGER, asyncEngines INTEGER, maxWarpsPerSm INTEGER,
    maxBlocksPerSm INTEGER, maxThreadsPerBlock INTEGER, computeMajor INTEGER, computeMinor INTEGER);
CREATE TABLE ANALYSIS_DETAILS (globalVid INTEGER NOT NULL, duration INTEGER NOT NULL, startTime INTEGER NOT NULL,
    stopTime INTEGER NOT NULL);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL ({_DEVICE_COLUMNS}, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL,
    mangledName INTEGER, launchType INTEGER, cacheConfig INTEGER, registersPerThread INTEGER NOT NULL,
    gridX INTEGER NOT NULL, gridY INTEGER NOT NULL, gridZ INTEGER NOT NULL, blockX INTEGER NOT NULL,
    blockY INTEGER NOT NULL, blockZ INTEGER NOT NULL, staticSharedMemory INTEGER NOT NULL,
    dynamicSharedMemory INTEGER NOT NULL, localMemoryPerThread INTEGER NOT NULL, localMemoryTotal INTEGER NOT NULL,
    gridId INTEGER NOT NULL, sharedMemoryExecuted INTEGER, graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY ({_DEVICE_COLUMNS}, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL,
    deprecatedSrcId INTEGER, srcKind INTEGER, dstKind INTEGER, srcDeviceId INTEGER, srcContextId INTEGER,
    dstDeviceId INTEGER, dstContextId INTEGER, migrationCause INTEGER, graphNodeId INTEGER, virtualAddress INTEGER,
    copyCount INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET ({_DEVICE_COLUMNS}, value INTEGER NOT NULL, bytes INTEGER NOT NULL,
    graphNodeId INTEGER, memKind INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL,
    globalTid INTEGER, correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL,
    callchainId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION ({_DEVICE_COLUMNS}, deprecatedSyncType INTEGER,
    syncType INTEGER NOT NULL, eventId INTEGER NOT NULL, eventSyncId INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER,
    category INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER,
    domainId INTEGER, uint64Value INTEGER, int64Value INTEGER, doubleValue REAL, uint32Value INTEGER,
    int32Value INTEGER, floatValue REAL, jsonTextId INTEGER, jsonText TEXT, binaryData TEXT);
"""

_DEVICE_WORK = {"deviceId": 0, "contextId": 1, "greenContextId": None, "globalPid": GLOBAL_PID, "graphNodeId": None}
CONSTANT_COLUMNS = {
    "CUPTI_ACTIVITY_KIND_KERNEL": {
        **_DEVICE_WORK, "streamId": COMPUTE_STREAM, "launchType": 1, "cacheConfig": 2, "gridZ": 1, "blockY": 1,
        "blockZ": 1, "staticSharedMemory": 0, "localMemoryPerThread": 0, "localMemoryTotal": 155_713_536,
        "sharedMemoryExecuted": 233_472, "sharedMemoryLimitConfig": 1,
    },
    "CUPTI_ACTIVITY_KIND_MEMCPY": {**_DEVICE_WORK, "streamId": COPY_STREAM, "copyCount": 1},
    "CUPTI_ACTIVITY_KIND_MEMSET": {**_DEVICE_WORK, "streamId": COMPUTE_STREAM, "value": 0, "memKind": 2},
    "CUPTI_ACTIVITY_KIND_RUNTIME": {"eventClass": 0, "globalTid": GLOBAL_TID, "returnValue": 0, "callchainId": None},
    # schema 3.20 labels the records of cudaStreamSynchronize 2, "stream wait"
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": {
        "deviceId": 0, "contextId": 1, "streamId": COMPUTE_STREAM, "globalPid": GLOBAL_PID, "syncType": 2,
        "eventId": 4_294_967_295, "eventSyncId": 4_294_967_295,
    },
    "NVTX_EVENTS": {"eventType": 59, "color": 255, "globalTid": GLOBAL_TID, "domainId": 0},
}  # fmt: skip

LAYERS, PARTS = 24, 12
_PART_NAMES = """norm1/LayerNormalization attention/qkv/MatMul attention/Reshape attention/Transpose
    attention/scores/MatMul attention/Softmax attention/context/MatMul attention/out/MatMul Add
    norm2/LayerNormalization mlp/MatMul mlp/Gelu""".split()
# One template for each part of a layer, with the tile of the variant; in shape and length as libraries name kernels.
_KERNEL_NAMES = (
    "void onnxruntime::cuda::cuApplyLayerNorm<float, float, float, (bool)0, (int){m}, (int){n}>(T3 *, T2 *, T2 *, "
    "const T1 *, int, int, T2, const T3 *, const T3 *, const T1 *, const T1 *, T1 *)",
    "nvjet_sm90_hsh_{m}x{n}_64x4_1x2_h_bz_coopA_NNT",
    "void onnxruntime::cuda::_CopyKernel<(int){m}, (int){n}>(const void *, void *, long)",
    "void onnxruntime::cuda::Transpose3DKernel<(unsigned int){m}, (unsigned int){n}>(const void *, void *, "
    "onnxruntime::cuda::TArray<long, (int)8>, onnxruntime::cuda::TArray<long, (int)8>)",
    "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize{m}x{n}x16_stage4_warpsize2x2x1_tensor16x8x8_kernel",
    "void onnxruntime::cuda::softmax_warp_forward<float, float, float, (int){m}, (bool)0, (int){n}>(T2 *, const T1 *, "
    "int, int, int)",
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_{m}x{n}_16x4_nn_align4>(T1::Params)",
    "ampere_sgemm_{m}x{n}_nn",
    "void onnxruntime::cuda::_BinaryElementWiseSimple<(bool)1, (bool)1, float, float, float, "
    "onnxruntime::cuda::OP_Add<float, float, float>, (int){m}, (int){n}>(const T4 *, const T5 *, T3 *, const T6 &, "
    "int)",
    "void onnxruntime::contrib::cuda::SkipLayerNormKernelSmall<float, (unsigned int){m}, (int){n}, (bool)0>(T1 *, "
    "T1 *, const T1 *, const T1 *, const T1 *, const T1 *, const T1 *, T1, int, bool)",
    "void gemmSN_NN_kernel<float, (int){m}, (int){n}, (int)4, (int)8, (int)4, (int)4, (bool)0, "
    "cublasGemvTensorStridedBatched<const float>, cublasGemvTensorStridedBatched<float>>(T9)",
    "void onnxruntime::cuda::_UnaryElementWise<float, float, onnxruntime::cuda::OP_Gelu<float>, (int){m}, (int){n}>("
    "const T1 *, T2 *, T3, long)",
)  # fmt: skip
_TILES = [*product((32, 64, 128, 256), (64, 128, 256)), (256, 512)]
VARIANTS = len(_TILES)

API_NAMES = {
    "kernel": "cudaLaunchKernel_v7000",
    "memset": "cudaMemsetAsync_v3020",
    "copy": "cudaMemcpyAsync_v3020",
    "sync": "cudaStreamSynchronize_v3020",
}
LAYER_NAMES = [f"/layer.{layer}" for layer in range(LAYERS)]
OP_NAMES = [f"{layer}/{part}" for layer in LAYER_NAMES for part in _PART_NAMES]
KERNEL_NAMES = [name.format(m=m, n=n) for name in _KERNEL_NAMES for m, n in _TILES]
_SHORT_NAMES = [name.partition("<")[0].partition("(")[0].rpartition("::")[2].removeprefix("void ")
                for name in KERNEL_NAMES]  # fmt: skip
_STRINGS = list(
    dict.fromkeys(["measure", "run", *API_NAMES.values(), *LAYER_NAMES, *OP_NAMES, *KERNEL_NAMES, *_SHORT_NAMES])
)


def string_id(name: str) -> int:
    """Row of `StringIds` that holds `name`; layers, ops and kernels lie there one after another."""
    return _STRINGS.index(name) + 1


FIRST_LAYER_ID, FIRST_OP_ID, FIRST_KERNEL_ID = (string_id(names[0]) for names in (LAYER_NAMES, OP_NAMES, KERNEL_NAMES))
SHORT_IDS = np.array([string_id(name) for name in _SHORT_NAMES])


def create(database: sqlite3.Connection) -> None:
    """Make the tables, and fill those that do not grow with the capture."""
    database.executescript(SCHEMA)
    database.executemany("INSERT INTO StringIds VALUES (?, ?)", enumerate(_STRINGS, start=1))
    version = {"": "3.20.3", "_MAJOR": "3", "_MINOR": "20", "_MICRO": "3"}
    database.executemany(
        "INSERT INTO META_DATA_EXPORT VALUES (?, ?)",
        [
            ("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"),
            ("EXPORT_PRODUCT_VERSION", "2025.3.2.0"),
            *((f"EXPORT_SCHEMA_VERSION{part}", value) for part, value in version.items()),
        ],
    )
    database.execute("INSERT INTO PROCESSES VALUES (?, ?, 'python3')", (GLOBAL_PID, PROCESS))
    database.execute("INSERT INTO TARGET_INFO_CUDA_CONTEXT_INFO VALUES (7, 0, 1, ?, 0, 1, 0, 0)", (PROCESS,))
    moment = "2026-11-21T12:02:30"
    database.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (?, ?, ?)", (EPOCH_NS, moment, moment))
    database.execute(
        "INSERT INTO TARGET_INFO_GPU VALUES (?, 0, 'NVIDIA H200', '0000:00:06.0', 1, 62914560, 150109880320, "
        "4814304000000, 1980000000, 132, '00000000-0000-0000-0000-000000000000', 'GH100', 32, 3, 64, 32, 1024, 9, 0)",
        (1 << 48,),
    )
