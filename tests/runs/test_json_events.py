"""Streaming the events of a trace against `json.loads` of the whole, and what damage leaves of a file."""

import contextlib
import gzip
import json
import random
import tracemalloc
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import SourceError
from workbench.runs import json_events
from workbench.runs.json_events import EventFile, plain_text

EVENTS = [
    {"cat": "Node", "name": 'a "quoted" \\ name', "ts": 1, "args": {"shapes": [{"float": [1, 2]}, {"float": [2]}]}},
    {"cat": "Node", "name": "snowman ☃ 😀", "ts": -2.5e3, "args": {}},
    {"name": "", "cat": "", "args": {"nested": [[[{"name": 1}], None], True]}},
]
LAYOUTS = {
    "a line each": lambda events: "[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n",
    "one line": json.dumps,
    "pretty": lambda events: json.dumps(events, indent=2),
    "escaped": lambda events: json.dumps(events, ensure_ascii=True, separators=(" ,", " : ")),
    "object": lambda events: json.dumps({"a": {"b": [1]}, "traceEvents": events, "z": "end"}),
    "pretty object": lambda events: json.dumps({"traceEvents": events, "z": 1.5}, indent=1, ensure_ascii=False),
}


@pytest.fixture(params=[7, 1 << 16])
def chunk(request, monkeypatch):
    """A chunk so small that every record crosses its border, and the real one."""
    monkeypatch.setattr(json_events, "CHUNK_BYTES", request.param)


def read(path, **options):
    file = EventFile(path, **options)
    return [event for batch in file for event in batch], file


def written(folder, text):
    path = folder / "trace.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_events(tmp_path, layout, chunk):
    events, file = read(written(tmp_path, layout(EVENTS * 3)))
    assert events == EVENTS * 3
    assert (file.cut, file.skipped) == (False, 0)


def test_what_stands_beside_the_events_is_metadata(tmp_path, chunk):
    trace = {"baseTimeNanoseconds": 10**18, "deviceProperties": [{"id": 0}], "traceEvents": EVENTS, "traceName": "x"}
    _, file = read(written(tmp_path, json.dumps(trace)))
    assert file.metadata == {key: value for key, value in trace.items() if key != "traceEvents"}


def test_metadata_stays_small(tmp_path):
    trace = {**{f"k{n}": "v" * 40_000 for n in range(20)}, "traceEvents": EVENTS, "last": 1}
    events, file = read(written(tmp_path, json.dumps(trace)))
    assert events == EVENTS
    assert list(file.metadata) == ["k0", "last"]


@pytest.mark.parametrize("layout", [LAYOUTS["a line each"], LAYOUTS["object"], LAYOUTS["pretty"]])
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(tmp_path, layout):
    text = layout(EVENTS).rstrip()
    ends, at = [], 0
    for event in EVENTS:  # where each record ends, found by decoding it and not by the reader
        while True:
            at = text.index("{", at)
            try:
                found, end = json.JSONDecoder().raw_decode(text, at)
            except ValueError:
                found = None
            if found == event:
                break
            at += 1
        ends.append(at := end)
    start = text.index("[", max(text.find("traceEvents"), 0)) + 1
    for cut in range(start, len(text)):
        events, file = read(written(tmp_path, text[:cut]))
        assert len(events) == sum(end <= cut for end in ends), text[:cut]
        assert (file.cut, file.skipped) == (True, 0), text[:cut]


def test_a_gzip_is_told_by_its_content_and_may_break_off(tmp_path):
    text = LAYOUTS["a line each"](EVENTS * 2000)
    packed = gzip.compress(text.encode())
    assert read(written(tmp_path, packed))[0] == EVENTS * 2000
    events, file = read(written(tmp_path, packed[: len(packed) // 2]))
    assert 0 < len(events) < len(EVENTS) * 2000
    assert file.cut
    assert events == (EVENTS * 2000)[: len(events)]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_events, "_FREE_EXPANSION_BYTES", 1 << 20)
    bomb = gzip.compress(b"[" + b" " * (8 << 20) + b"]")
    with pytest.raises(SourceError, match="expands beyond 200 times"):
        read(written(tmp_path, bomb))


@pytest.mark.parametrize(
    ("damaged", "left", "skipped"),
    [
        ('[{"name": 1}, {"name": x}, {"name": 2}]', [1, 2], 1),
        ('[{"name": "a"b"}, {"name": 2}]', [2], 1),
        ('[{"name": "\\q", "args": {"s": [{"float": [1]},{"float": [2]}]}},\n{"name": 2}]', [2], 1),
        ('[{"name": 1}, 5, "text", null, [1], {"name": 2}]', [1, 2], 4),
        ('[{"name": 1},, {"name": 2},]', [1, 2], 0),
        ('[{"name": 1} {"name": 2}]', [1, 2], 0),
        ('[{"name": NaN}, {"name": -Infinity}, {"name": 2}]', ["nan", "-inf", 2], 0),
        (b'[{"name": "\xff\xfe"}, {"name": 2}]', ["\ufffd\ufffd", 2], 0),
        (b'\xef\xbb\xbf[{"name": 2}]', [2], 0),
    ],
)
def test_damaged_records_are_left_out_and_counted(tmp_path, damaged, left, skipped, chunk):
    events, file = read(written(tmp_path, damaged))
    names = [str(e["name"]) if isinstance(e["name"], float) else e["name"] for e in events]
    assert names == left
    assert (file.skipped, file.cut) == (skipped, False)


@pytest.mark.parametrize(
    "text",
    ["", " \n", "SQLite format 3\0", '"text"', "12", "{}", '{"a": 1}', '{"traceEvents": 5}', "nul", '{"a', "{1: 2}"],
)
def test_what_is_no_trace_is_one_sentence(tmp_path, text, chunk):
    with pytest.raises(SourceError, match=r"^trace\.json holds no .* record it again\.$"):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 100_000, "too deep"),
        ('[{"a":' + '{"a":' * 100_000, "too deep"),
        ('[{"a": ' + "9" * 5000 + "}]", "number"),
        ('[{"name": "' + "x" * (5 << 20) + '"}]', "4 MB"),
        ('[{"name": "' + "x" * (5 << 20), "4 MB"),
    ],
)
def test_hostile_values_are_one_sentence(tmp_path, text, word):
    with pytest.raises(SourceError, match=f"{word}.*record it again"):
        read(written(tmp_path, text))


def test_decimals_beyond_all_use_are_one_sentence(tmp_path):
    with pytest.raises(SourceError, match="number"):
        read(written(tmp_path, '[{"ts": 1e99999999999999999999}]'), parse_float=Decimal)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"none\.json cannot be read \(No such file"):
        read(tmp_path / "none.json")


def test_batches_are_about_as_large_as_a_chunk(tmp_path):
    """However records fall on the borders of chunks: these fill them exactly."""
    text = json.dumps({"name": "x" * 50})
    assert len(text) + 2 == 64
    batches = list(EventFile(written(tmp_path, "[ " + ", ".join([text] * 10_000) + "]")))
    assert max(map(len, batches)) <= json_events.CHUNK_BYTES // len(text) + 1


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(count):
        path = written(tmp_path, LAYOUTS["one line"](EVENTS * count))
        tracemalloc.start()
        assert sum(map(len, EventFile(path))) == len(EVENTS) * count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(3_000) < 1.2 * peak(1_000)


@pytest.mark.parametrize(
    "unit", ['{"name": x}, ', '{"name": "\\q"},\n', '}, {"name": [', '"', "},{", '{"a":[', "[[1,", "\\", ",:]"]
)
def test_no_damage_makes_reading_quadratic(tmp_path, unit, monkeypatch):
    decoded = 0
    original = json_events.JSONDecoder.raw_decode

    def counting(self, text, at=0):
        nonlocal decoded
        value, end = None, at
        try:
            value, end = original(self, text, at)
        except json.JSONDecodeError as error:
            end = error.pos
            raise
        finally:
            decoded += end - at
        return value, end

    monkeypatch.setattr(json_events.JSONDecoder, "raw_decode", counting)
    text = '[{"name": 1}, ' + unit * (100_000 // len(unit))
    with contextlib.suppress(SourceError):
        read(written(tmp_path, text))
    assert decoded < 4 * len(text)


def test_a_file_of_damage_is_given_up(tmp_path):
    with pytest.raises(SourceError, match=r"more than 10,000 damaged records: record it again\.$"):
        read(written(tmp_path, "[" + '{"name": x},' * 10_002 + "]"))


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(LAYOUTS)), st.booleans())
def test_flipped_bytes_end_in_events_or_one_sentence(tmp_path_factory, rng: random.Random, layout, packed):
    data = bytearray(LAYOUTS[layout](EVENTS * 4).encode())
    if packed:
        data = bytearray(zlib.compress(bytes(data), wbits=31))
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path = written(tmp_path_factory.mktemp("flipped"), bytes(data))
    try:
        events, _ = read(path)
    except SourceError:
        return
    assert all(type(event) is dict for event in events)


def test_half_of_a_surrogate_pair_becomes_text():
    assert plain_text(json.loads('"a\\ud83d"')) == "a?"
    assert plain_text("naïve 😀") == "naïve 😀"
