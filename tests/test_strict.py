"""Payloads that different readers would read differently: refused, or stored so that every reader reads the same."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import raw, strict
from pipeline.body import Counters, read_bounded, read_page, read_run
from pipeline.discover import is_entry
from pipeline.kinds import BY_OBJECT
from pipeline.lake import LakeFiles
from pipeline.replay import load_files
from pipeline.retry import BrokenBodyError, TooLargeError
from pipeline.strict import MAX_NESTING, parse_json, parse_page
from tests.conftest import NOON

CLASSIFY = BY_OBJECT["classify_run"]


@pytest.mark.parametrize(
    "body",
    [
        '{"object": "classify_run", "id": "clr_2", "id": "clr_1"}',
        '{"object": "classify_run", "id": "clr_2", "\\u0069d": "clr_1"}',
        '{"object": "extract_run", "id": "clr_1", "object": "classify_run"}',
    ],
)
def test_an_answer_that_names_its_run_twice_is_refused(body: str) -> None:
    with pytest.raises(BrokenBodyError, match="twice"):
        read_run(body.encode(), CLASSIFY, "clr_1")
    with pytest.raises(BrokenBodyError, match="twice"):
        read_page(f'{{"object": "list", "data": [{body}]}}'.encode())


def test_of_another_key_that_stands_twice_the_last_counts() -> None:
    assert parse_json(b'{"id": "a", "d": 1, "d": 2, "file": {"id": 1, "id": 2}}') == {
        "id": "a",
        "d": 2,
        "file": {"id": 2},
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "object", "data", "x"]), inner),
    max_leaves=20,
)
PAGE = st.fixed_dictionaries({"object": st.just("list"), "data": st.lists(JSON)}, optional={"nextPageToken": st.text()})


def outcome(read: Callable[[bytes], Any], text: str) -> str:
    try:
        return json.dumps(read(text.encode("utf-8", "surrogatepass")))
    except ValueError as error:
        return f"refused: {error}"


@given(PAGE | JSON, st.sampled_from([None, 0, 1]), st.integers(0), st.sampled_from(['"', ",", "}", "]", "[", "", " :"]))
def test_a_page_is_read_as_any_json_is_and_its_entries_as_they_stand(
    page: Any, indent: int | None, at: int, spoiling: str
) -> None:
    text = json.dumps(page, indent=indent)
    value, texts = parse_page(text.encode())
    assert json.dumps(value) == json.dumps(page) == outcome(parse_json, text)
    entries = page.get("data") if isinstance(page, dict) else None
    assert [json.dumps(json.loads(each)) for each in texts] == [
        json.dumps(entry) for entry in (entries if isinstance(entries, list) else [])
    ]
    assert all(each in text.encode() and each == each.strip() for each in texts)
    spoiled = text[: at % (len(text) + 1)] + spoiling + text[at % (len(text) + 1) + 1 :]
    assert outcome(lambda each: parse_page(each)[0], spoiled) == outcome(parse_json, spoiled)


PIECES = [
    '{"object": "list", "data": [', '{"id": "clr_1", ', '{"id": ', '"id": "x"', '"object": 1', '"data": [', '"data": 7',
    '"a:b"', '": "', "]}", "]", "}", ", ", ":", '"d": ', '"d\\u003ae": ', '"d\\u003Ae": ', '"\\\\u003a"', '"\\u0022: "',
    '"\\"', "[", "{", "1", "1.10", "-0.0", "1e400", "NaN", "-Infinity", "18446744073709551616", "-9223372036854775809",
    "1" * 40, "0.1", "01", "null", "true", '"\\ud83d\\ude00"', '"\\ud800"', '"\ud800"', '"é №"', '"\x7f"', '"\t"',
    "\n", " ", "\ufeff", "nul",
]  # fmt: skip


def is_read_in_one_way(text: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether a text was read the quick way, having made sure that the other way reads it as the same."""

    def read(content: bytes) -> str:
        return repr(parse_json(content)) + repr(parse_page(content))

    quick = outcome(read, text)
    is_plain = strict._read_plain(text.encode("utf-8", "surrogatepass")) is not None
    with monkeypatch.context() as patch:
        patch.setattr(strict, "_read_plain", lambda _content: None)
        assert outcome(read, text) == quick
    return is_plain


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@settings(max_examples=1_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_the_quick_way_is_what_the_other_way_reads(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    is_read_in_one_way(text, monkeypatch)


@given(PAGE | JSON, st.sampled_from([None, 0, 1]), st.booleans(), st.integers(0), st.sampled_from(PIECES))
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_whole_but_for_a_piece_is_read_alike_in_both_ways(
    monkeypatch: pytest.MonkeyPatch, value: Any, indent: int | None, is_ascii: bool, at: int, piece: str
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    at %= len(text) + 1
    is_read_in_one_way(text[:at] + piece + text[at:], monkeypatch)


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ('{"object": "list", "data": [{"id": "a:b", "é": [1.10, {}]}, null]}', True),
        ('[{"d": 1, "D": 2}, {"d": 3}]', True),
        ('{"d": {"e": 1}, "d": {"e": 1}}', False),
        ('{"d": 1, "\\u0064": 1}', False),
        ('{"d": ":", "d": ""}', False),
        ('{"d": "", "d": "::"}', False),
        ('{"d": 1, "d": "\\u003a"}', False),  # one colon fewer, and one written as an escape
        ('{"d": 1, "d": "\\u003A"}', False),
        ('{"d": 1e400}', False),
        ('{"d": NaN}', False),
        (f'{{"d": {2**64}, "e": {-(2**63) - 1}, "f": {10**40}}}', True),
        ('"\\ud800"', False),
        ('"\ud800"', False),
        ("\ufeff{}", False),
        ("", False),
        ("null", False),
    ],
)
def test_only_what_all_readers_read_in_one_way_is_read_the_quick_way(
    monkeypatch: pytest.MonkeyPatch, text: str, is_plain: bool
) -> None:
    assert is_read_in_one_way(text, monkeypatch) == is_plain


@pytest.mark.parametrize(("levels", "is_taken"), [(MAX_NESTING - 2, True), (MAX_NESTING - 1, False)])
def test_an_entry_of_a_page_is_nested_two_levels_deeper(levels: int, is_taken: bool) -> None:
    deep = "[" * levels + "]" * levels
    page = f'{{"data": [{", ".join([*["[[]]"] * 100, deep])}], "object": "list"}}'.encode()
    if is_taken:
        assert len(parse_page(page)[1]) == 101
    else:
        with pytest.raises(ValueError, match="too deep"):
            parse_page(page)
    with pytest.raises(ValueError, match="too deep"):
        parse_page(f'{{"data": [[]], "other": {"[" * MAX_NESTING}{"]" * MAX_NESTING}}}'.encode())


def test_of_data_that_stands_twice_the_last_counts() -> None:
    assert parse_page(b' {"data": [1, {"x": 1.10}], "data" : [ 2.50 ,"a"] } ') == (
        {"data": [2.5, "a"]},
        [b"2.50", b'"a"'],
    )
    assert parse_page(b'{"data": [1], "data": null}') == ({"data": None}, [])
    assert parse_page(b'[{"data": [1]}]') == ([{"data": [1]}], [])


@pytest.mark.parametrize(
    ("levels", "is_taken"), [(100, True), (MAX_NESTING, True), (MAX_NESTING + 1, False), (990, False)]
)
def test_nesting_is_taken_as_far_as_every_reader_goes(levels: int, is_taken: bool) -> None:
    text = b"[" * levels + b"]" * levels
    if is_taken:
        assert parse_json(text)
    else:
        with pytest.raises(ValueError, match="too deep"):
            parse_json(text)


def test_a_number_of_too_many_digits_is_told() -> None:
    assert parse_json(b"9" * 4000) == int("9" * 4000)
    with pytest.raises(ValueError, match="too many digits"):
        parse_json(b"9" * 5000)


def write_log(path: Path, *lines: bytes) -> None:
    writer = raw.RawWriter.create(path)
    for line in lines:
        writer.append(line)
    writer.checkpoint()
    writer.close()


def test_a_raw_log_with_odd_payloads_is_read_by_duckdb(tmp_path: Path) -> None:
    deep = "[" * 100 + "]" * 100
    texts = ['"\\ud800"', '"\\\\ud800"', '"a\\uD83D\\ude00b"', '"\\uDC80\\uD800"', "NaN", "-Infinity", "9" * 40, deep]
    lines = [
        raw.run_record("x", f'{{"x": {text}}}'.encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
        for text in texts
    ]
    write_log(tmp_path / "log.jsonl.zst", *lines)
    columns = "columns={payload: 'JSON'}, format='newline_delimited'"
    found = duckdb.sql(f"SELECT payload->>'x' FROM read_json('{tmp_path}/log.jsonl.zst', {columns})").fetchall()
    assert [value for (value,) in found[:4]] == ["\\ud800", "\\ud800", "a😀b", "\\udc80\\ud800"]
    assert len(found) == len(texts)
    assert duckdb.sql(f"SELECT count(*) FROM read_json('{tmp_path}/log.jsonl.zst')").fetchall() == [(len(texts),)]


def test_many_large_payloads_in_one_checkpoint_are_read_back(tmp_path: Path) -> None:
    # 288 MiB in all: more than a reader takes as one frame.
    line = b'{"record": "x", "y": "' + b"y" * (24 << 20) + b'"}\n'
    write_log(tmp_path / "log.jsonl.zst", *[line] * 12)
    read = 0
    for part in raw.iter_frames(tmp_path / "log.jsonl.zst"):
        assert isinstance(part, raw.Frame)
        read += len(part.lines)
    assert read == 12


def test_a_list_entry_whose_id_tells_another_kind_is_none() -> None:
    assert is_entry({"object": "classify_run", "id": "clr_1"}, CLASSIFY)
    assert is_entry({"object": "classify_run", "id": "new_1"}, CLASSIFY)
    assert not is_entry({"object": "classify_run", "id": "exr_1"}, CLASSIFY)


@pytest.mark.parametrize(
    "change",
    [
        {"detail": "yes"}, {"fetched_at": "0001-01-01T00:00:00+23:59"}, {"run_id": "clr_other"}, {"run_id": []},
        {"payload": None}, {"payload": {"id": 1}},
    ],
)  # fmt: skip
def test_a_record_of_odd_types_costs_itself_alone(lake: LakeFiles, change: dict[str, object]) -> None:
    from pipeline.lake import UnlandedLog
    from pipeline.landing import land_log

    def record(name: str, **fields: object) -> bytes:
        payload = {"object": "classify_run", "id": name}
        head = {"record": "run", "run_id": name, "fetched_at": NOON.isoformat(), "detail": True, "workspace_id": None}
        return json.dumps({**head, "payload": payload, **fields}).encode() + b"\n"

    odd_failure = {"record": "failed", "run_id": "clr_3", "reason": [], "message": "m", "failed_at": NOON.isoformat()}
    load_id = "20261103T120000000Z-abcdef"
    path = raw.raw_path(lake.raw_folder, load_id)
    write_log(path, record("clr_1"), record("clr_2", **change), json.dumps(odd_failure).encode() + b"\n")
    with lake.writing(tell=lambda _message: None):
        landing = land_log(lake, UnlandedLog(path, load_id, 0))
    assert (landing.landed, landing.invalid, landing.failed) == (1, 2, 0)


def test_of_large_bodies_under_way_one_is_read_at_a_time() -> None:
    held = most = 0

    async def body(size: int) -> AsyncIterator[bytes]:
        nonlocal held, most
        for number in range(size):
            if number == 10:
                held += 1
                most = max(most, held)
            await asyncio.sleep(0)
            yield b"x" * 65_536
        held -= 1

    async def main() -> None:
        large = asyncio.Lock()
        reads = [
            read_bounded(body(40), encoding="", limit_bytes=2**23, counters=Counters(), large=large) for _ in range(8)
        ]
        assert [len(each) for each in await asyncio.gather(*reads)] == [40 * 65_536] * 8
        with pytest.raises(TooLargeError):
            await read_bounded(body(200), encoding="", limit_bytes=2**23, counters=Counters(), large=large)
        assert not large.locked()

    asyncio.run(main())
    assert most == 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_a_line_that_is_too_large_is_passed_over_and_the_rest_lands(lake: LakeFiles, tmp_path: Path, pack) -> None:
    good = '{"object": "classify_run", "id": "clr_%d", "status": "PROCESSED"}\n'
    content = (good % 1).encode() + b'"' + b"x" * (100 << 20) + b'"\n' + (good % 2).encode()
    (tmp_path / "saved").write_bytes(pack(content))
    told: list[tuple[str, str]] = []
    result = load_files([str(tmp_path / "saved")], lake, report=lambda place, why: told.append((place, why)))
    assert result.landed == 2
    assert told == [(f"{tmp_path}/saved:2", "a line larger than 48 MiB")]
