"""What an import makes of exports that are damaged or hostile in one known way each."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from workbench.errors import ConfigError, SourceError
from workbench.runs.imports import Selection, import_files
from workbench.runs.nsight.source import LONGEST_TEXT, SqliteSource
from workbench.runs.reader import RunFolder

EXPORT = "nsight_launch_graph_nodes.sqlite"
KERNELS = 1500


@pytest.fixture
def changed(capture, tmp_path):
    """The run that an export becomes after some statements of SQL."""

    def imported(*statements, selection=None):
        file = tmp_path / EXPORT
        shutil.copy(capture(EXPORT), file)
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)
        return RunFolder(import_files([file], tmp_path / "out" / "run", selection or Selection()))

    yield imported
    assert {path.name for path in tmp_path.glob("out/*")} <= {"run"}


def test_names_in_another_encoding_keep_what_can_be_read(changed):
    run = changed("UPDATE StringIds SET value = CAST(x'ff' AS TEXT) || value WHERE value = 'measure'")
    assert "\ufffdmeasure" in set(run.ranges["name"])
    assert "warm-up" in set(run.ranges["name"])


def test_a_text_of_megabytes_is_cut_and_the_others_stay(changed):
    run = changed("UPDATE NVTX_EVENTS SET textId = NULL, text = hex(zeroblob(3000000)) WHERE rowid = 1")
    lengths = run.ranges["name"].astype(str).str.len()
    assert lengths.max() == LONGEST_TEXT + 1
    assert (lengths < 100).sum() == len(lengths) - 1


def test_a_description_that_makes_no_sense_is_unknown(changed):
    run = changed("UPDATE TARGET_INFO_GPU SET smCount = 'many', totalMemory = -1, clockRate = x'00', name = 'A\nB'")
    device = run.manifest.device
    assert (device.sm_count, device.memory_bytes, device.max_sm_clock_mhz, device.name) == (None, None, None, "A B")
    assert len(run.kernels) == KERNELS


@pytest.mark.parametrize(("version", "said"), [("99.0.0", "newer than any known"), ("9" * 5000, None), ("²", None)])
def test_a_schema_version_of_any_kind(changed, version, said):
    run = changed(f"UPDATE META_DATA_EXPORT SET value = '{version}' WHERE name = 'EXPORT_SCHEMA_VERSION'")
    assert len(run.kernels) == KERNELS
    assert any(said in sentence for sentence in run.manifest.imported.skipped) if said else True
    assert run.manifest.imported.files[0].version == (version if said else "unknown")


def test_an_unknown_table_is_named_on_one_line(changed):
    run = changed('CREATE TABLE "a\nb\x1b" (x)')
    assert [each for each in run.manifest.imported.skipped if "a b\ufffd" in each]


def test_row_ids_far_apart_are_read_in_one_part(changed, tmp_path):
    run = changed("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET rowid = rowid * 800000")
    assert len(run.kernels) == KERNELS
    assert SqliteSource(tmp_path / EXPORT).parts("CUPTI_ACTIVITY_KIND_KERNEL", 1000) == []
    assert len(SqliteSource(tmp_path / EXPORT).parts("CUPTI_ACTIVITY_KIND_RUNTIME", 1000)) > 1


def test_host_calls_without_names_leave_the_synchronisations_as_recorded(changed):
    run = changed("ALTER TABLE CUPTI_ACTIVITY_KIND_RUNTIME RENAME COLUMN nameId TO other")
    assert run.launches["name"].isna().all()
    assert len(run.syncs) == 19
    assert run.syncs["kind"].notna().all()


def test_graph_nodes_that_come_from_each_other(changed):
    run = changed("UPDATE CUDA_GRAPH_NODE_EVENTS SET originalGraphNodeId = graphNodeId")
    assert (run.graph_nodes["origin"] == run.graph_nodes["graph_node"]).all()
    assert len(run.kernels) == KERNELS


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET deviceId = 1 << 40 WHERE rowid = 9",
        "UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET nameId = 'a' || char(7) WHERE rowid = 1",
        "UPDATE NVTX_EVENTS SET eventType = 'x' WHERE rowid = 1",
    ],
)
def test_a_value_that_its_column_cannot_hold_is_one_sentence(changed, statement):
    with pytest.raises(SourceError, match=r"holds what it should not \([^\n\x07]*\): export it again\.$"):
        changed(statement)


def test_a_range_that_is_not_there_is_shown_shortened(changed):
    with pytest.raises(ConfigError) as refusal:
        changed(selection=Selection(range="x" * 5000))
    assert len(str(refusal.value)) < 300
    assert "measure" in str(refusal.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="save it as one"):
        import_files([tmp_path / "pipe"], tmp_path / "out")


def test_a_damaged_gzip_stream_is_one_sentence(tmp_path):
    (tmp_path / "trace.json.gz").write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\xff" * 60)
    with pytest.raises(SourceError, match=r"cannot be read .*: copy it again"):
        import_files([tmp_path / "trace.json.gz"], tmp_path / "out")
