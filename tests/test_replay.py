"""Landing saved payloads: every shape they are kept in, with what cannot be used named and the rest landed."""

import gzip
import io
import json
import os
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.catalog import Lake
from pipeline.errors import RunMissingError, UsageError
from pipeline.lake import LakeFiles
from pipeline.loads import Load, LoadResult
from pipeline.replay import load_files
from pipeline.sandbox.world import World
from tests.conftest import NOON, classify, land
from tests.logged import logged

Payload = dict[str, Any]

SUMMARY = {name: value for name, value in classify("clr_s").items() if name != "config"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may ask for anything."""

    def refuse(*_arguments: Any) -> None:
        raise AssertionError("a request was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Said(list[tuple[str, str]]):
    """Takes reports of what is unusable."""

    def __call__(self, place: str, why: str) -> None:
        self.append((place, why))

    @property
    def places(self) -> list[str]:
        return [place for place, _why in self]


def write(folder: Path, content: bytes | str, name: str = "saved.json") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def replay(lake: LakeFiles, *names: str, **options: Any) -> tuple[LoadResult, Said]:
    said = Said()
    return load_files(names, lake, report=said, **options), said


def counts(result: LoadResult) -> tuple[int, int, int, int]:
    """Return requested, landed, unchanged and invalid."""
    return (result.requested, result.landed, result.unchanged, result.invalid)


def rows(lake: LakeFiles, columns: str) -> list[tuple[Any, ...]]:
    with Lake(lake.folder) as catalog:
        return catalog.sql(f"SELECT {columns} FROM runs ORDER BY run_id").fetchall()


def lines(*payloads: Any) -> str:
    return "".join(json.dumps(payload) + "\n" for payload in payloads)


# Shapes

ONE, TWO = classify("clr_1"), classify("clr_2", createdAt="2026-11-05T00:00:00Z")

SHAPES: dict[str, tuple[str, list[str]]] = {
    "one object": (json.dumps(ONE), ["clr_1"]),
    "one object, pretty-printed": (json.dumps(ONE, indent=2), ["clr_1"]),
    "one object after empty lines, with Windows line ends": ("\r\n\n  \r\n" + json.dumps(ONE) + "\r\n", ["clr_1"]),
    "a line each": (lines(ONE, TWO), ["clr_1", "clr_2"]),
    "a line each, without the last line end, and with empty ones": ("\n" + lines(ONE) + "\n \n" + json.dumps(TWO),
                                                                   ["clr_1", "clr_2"]),
    "a line each, with Windows line ends": (lines(ONE, TWO).replace("\n", "\r\n"), ["clr_1", "clr_2"]),
    "a list": (json.dumps([ONE, TWO]), ["clr_1", "clr_2"]),
    "a list, pretty-printed": (json.dumps([ONE, TWO], indent=4), ["clr_1", "clr_2"]),
    "a list with a line for each": ("[" + json.dumps(ONE) + ",\n" + json.dumps(TWO) + "]", ["clr_1", "clr_2"]),
    "lists, a line each": (lines([ONE], [], [[TWO]]), ["clr_1", "clr_2"]),
    "an empty list": ("[]", []),
    "a list page": (json.dumps({"object": "list", "data": [ONE, TWO], "nextPageToken": "t"}), ["clr_1", "clr_2"]),
    "list pages, a line each": (lines({"object": "list", "data": [ONE]}, {"object": "list", "data": [TWO]}),
                                ["clr_1", "clr_2"]),
    "a list page, pretty-printed": (json.dumps({"data": [ONE], "object": "list"}, indent=2), ["clr_1"]),
    "a webhook event": (json.dumps({"eventId": "e", "eventType": "classify_run.processed", "payload": ONE}),
                        ["clr_1"]),
    "webhook events, a line each": (lines({"eventType": "x", "payload": ONE}, {"eventType": "y", "payload": TWO}),
                                    ["clr_1", "clr_2"]),
    "events and runs together": (lines({"eventType": "x", "payload": ONE}, TWO), ["clr_1", "clr_2"]),
    "with a byte order mark": ("\ufeff" + lines(ONE, TWO), ["clr_1", "clr_2"]),
    "pretty-printed with a byte order mark": ("\ufeff" + json.dumps(ONE, indent=1), ["clr_1"]),
    "nothing": ("", []),
    "empty lines": ("\n \r\n\t\n", []),
}  # fmt: skip
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in two members": lambda content: gzip.compress(content[:40]) + gzip.compress(content[40:]),
    "zstd": zstandard.compress,
    "zstd in two frames": lambda content: zstandard.compress(content[:40]) + zstandard.compress(content[40:]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_lands(lake: LakeFiles, tmp_path: Path, shape: str) -> None:
    text, run_ids = SHAPES[shape]
    result, said = replay(lake, write(tmp_path, text))
    assert (said, counts(result)) == ([], (len(run_ids), len(run_ids), 0, 0))
    found = rows(lake, "run_id, status, created_at IS NOT NULL")
    assert found == [(run_id, "PROCESSED", True) for run_id in run_ids]


@pytest.mark.parametrize("name", ["saved.json", "saved.gz", "saved.zst", "saved"])
def test_every_packing_is_told_by_the_content_and_not_by_the_name(lake: LakeFiles, tmp_path: Path, name: str) -> None:
    names, run_ids = [], []
    makers = (lines, lambda *them: json.dumps(them, indent=1), lambda *them: "\ufeff" + lines(*them))
    for packing, pack in PACKINGS.items():
        for number, make in enumerate(makers):
            payloads = [classify(f"clr_{len(run_ids) + each}") for each in range(2)]
            (tmp_path / f"{packing} {number}").mkdir()
            names.append(write(tmp_path / f"{packing} {number}", pack(make(*payloads).encode()), name))
            run_ids += [payload["id"] for payload in payloads]
    result, said = replay(lake, *names)
    assert (said, counts(result)) == ([], (30, 30, 0, 0))
    assert {run_id for (run_id,) in rows(lake, "run_id")} == set(run_ids)


def test_several_files_and_standard_input_are_one_load(lake: LakeFiles, tmp_path: Path) -> None:
    names = [write(tmp_path, lines(ONE), "a.json"), "-", write(tmp_path, gzip.compress(lines(TWO).encode()), "b.json")]
    before = datetime.now(UTC)
    result, said = replay(lake, *names, stdin=io.BytesIO(zstandard.compress(lines(classify("clr_3")).encode())))
    assert (said, counts(result)) == ([], (3, 3, 0, 0))
    assert rows(lake, "run_id, load_id") == [(run_id, result.load_id) for run_id in ("clr_1", "clr_2", "clr_3")]
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT command, source, state, landed FROM loads").fetchall() == [
            ("load", f"{names[0]}, -, {names[2]}", "complete", 3)
        ]
        ((received,),) = catalog.sql("SELECT fetched_at FROM runs WHERE run_id = 'clr_3'").fetchall()
    assert before <= received <= datetime.now(UTC)


def test_a_raw_log_of_another_lake_lands_as_it_was_there(lake: LakeFiles, tmp_path: Path) -> None:
    other = LakeFiles(tmp_path / "other")
    load = Load(other, command="fetch", source="test")
    times = {"createdAt": "2026-11-01T10:00:00Z", "updatedAt": "2026-11-01T10:00:00Z"}
    for payload, is_detail, hour in (
        (ONE, True, 0),
        (SUMMARY, False, 1),
        ({"object": "parse_run", "id": "pr_1", "status": "PROCESSED", "usage": {"credits": 2}}, True, 2),
        ({"object": "parse_run", "id": "pr_1", "status": "PROCESSED", **times}, False, 3),
    ):
        received = NOON + timedelta(hours=hour)
        body = json.dumps(payload).encode()
        load.take_run(payload["id"], body, fetched_at=received, is_detail=is_detail, workspace_id="ws_1")
    gone = RunMissingError("run clr_9: no such run", run_id="clr_9", reason="NOT_FOUND", http_status=404)
    load.take_failure(gone, workspace_id="ws_1")
    load.finish()
    (log,) = other.raw_logs()
    result, said = replay(lake, str(log), workspace_id="ws_other")
    assert (said, counts(result)) == ([], (3, 3, 0, 0))
    assert rows(lake, "* EXCLUDE load_id") == rows(other, "* EXCLUDE load_id")
    assert rows(lake, "run_id, is_detail, workspace_id, fetched_at") == [
        ("clr_1", True, "ws_1", NOON),
        ("clr_s", False, "ws_1", NOON + timedelta(hours=1)),
        ("pr_1", True, "ws_1", NOON + timedelta(hours=3)),
    ]


# What a payload is


def test_what_a_list_page_holds_is_a_summary_and_what_an_event_holds_is_a_detail(
    lake: LakeFiles, tmp_path: Path
) -> None:
    def with_id(run_id: str) -> Payload:
        return {**SUMMARY, "id": run_id}

    text = lines(
        {"object": "list", "data": [classify("clr_page"), with_id("clr_page2")]},
        {"eventType": "classify_run.processed", "payload": with_id("clr_event")},
        with_id("clr_bare"),
        classify("clr_config"),
        {**with_id("clr_output"), "output": {"id": "invoice", "type": "invoice"}},
        {**with_id("clr_usage"), "usage": {"credits": 1, "totalCredits": 1}},
        {**with_id("clr_breakdown"), "usage": {"credits": 1, "totalCredits": 1, "breakdown": []}},
        {"object": "workflow_run", "id": "workflow_run_list", "status": "PROCESSED", "files": []},
        {"object": "workflow_run", "id": "workflow_run_steps", "status": "PROCESSED", "stepRuns": []},
        {"object": "form_detection_run", "id": "sgr_1", "status": "PROCESSED"},
        {"object": "verify_run", "id": "vr_1", "status": "PROCESSED", "config": {}, "riskLevel": "LOW"},
        {"object": "verify_run", "id": "vr_2", "status": "PROCESSED", "config": {}, "output": {}},
    )
    replay(lake, write(tmp_path, text))
    assert dict(rows(lake, "run_id, is_detail")) == {
        "clr_page": False, "clr_page2": False, "clr_event": True, "clr_bare": False, "clr_config": True,
        "clr_output": True, "clr_usage": False, "clr_breakdown": True, "workflow_run_list": False,
        "workflow_run_steps": True, "sgr_1": True, "vr_1": False, "vr_2": True,
    }  # fmt: skip


def test_finished_details_and_summaries_of_the_sandbox_are_told_apart(
    lake: LakeFiles, tmp_path: Path, world: World
) -> None:
    processed = [run for run in world.iter_runs() if run.status == "PROCESSED" and run.kind.listed]
    details, summaries = processed[::8], processed[4::8]
    text = lines(*(world.detail(run.run_id, "url") for run in details))
    text += lines(*(world.summary(run.run_id) for run in summaries))
    result, said = replay(lake, write(tmp_path, text))
    expected = {run.run_id: run in details for run in [*details, *summaries]}
    assert (said, counts(result)) == ([], (len(expected), len(expected), 0, 0))
    assert result.field_problems == {}
    assert dict(rows(lake, "run_id, is_detail")) == expected


def test_a_payload_counts_as_received_when_its_file_was_last_changed(lake: LakeFiles, tmp_path: Path) -> None:
    times = [datetime(2026, 11, 10, 8, 0, tzinfo=UTC), datetime(2026, 11, 12, 8, 0, tzinfo=UTC)]
    names = []
    for at, status in zip(times, ("PROCESSING", "PROCESSED"), strict=True):
        # A parse run's detail does not say when it was updated.
        payload = {"object": "parse_run", "id": "pr_1", "status": status, "config": {}}
        names.append(write(tmp_path, lines(payload), f"{status}.json"))
        os.utime(names[-1], (at.timestamp(), at.timestamp()))
    replay(lake, *reversed(names))
    assert rows(lake, "status, fetched_at") == [("PROCESSED", times[1])]


def test_the_workspace_is_the_one_that_was_named(lake: LakeFiles, tmp_path: Path) -> None:
    replay(lake, write(tmp_path, lines(ONE)), workspace_id="ws_7")
    assert rows(lake, "workspace_id") == [("ws_7",)]


def test_the_same_files_again_change_nothing(lake: LakeFiles, tmp_path: Path) -> None:
    name = write(tmp_path, lines(ONE, TWO, {"object": "list", "data": [SUMMARY]}))
    assert counts(replay(lake, name)[0]) == (3, 3, 0, 0)
    before = rows(lake, "* EXCLUDE load_id")
    result, said = replay(lake, name)
    assert (said, counts(result)) == ([], (3, 0, 3, 0))
    assert rows(lake, "* EXCLUDE load_id") == before
    assert rows(lake, "DISTINCT load_id, NULL AS run_id") == [(result.load_id, None)]


def test_a_run_that_comes_several_times_is_one(lake: LakeFiles, tmp_path: Path) -> None:
    page = {"object": "list", "data": [{**SUMMARY, "id": "clr_1"}]}
    assert counts(replay(lake, write(tmp_path, lines(ONE, page, ONE)))[0]) == (1, 1, 0, 0)


SAID = '{ "object": "classify_run","id": "clr_1",  "config": {}, "metadata": {"rate": 1.10, "a": 1, "a": 2}}'


@pytest.mark.parametrize(
    ("content", "in_log"),
    [
        (f"{SAID}\n", SAID),
        (f"\ufeff \t{SAID}\r\n{json.dumps(TWO)}", SAID),
        (SAID.replace("  ", "\r\n"), SAID),  # one document of two lines
    ],
)
def test_a_payload_is_logged_as_it_stands_in_the_file(
    lake: LakeFiles, tmp_path: Path, content: str, in_log: str
) -> None:
    assert replay(lake, write(tmp_path, content))[0].landed >= 1
    (log,) = lake.raw_logs()
    first = zstandard.ZstdDecompressor().stream_reader(log.read_bytes(), read_across_frames=True).read().split(b"\n")[1]
    assert first.decode().endswith(f'"payload": {in_log}}}')
    assert set(logged(log)) >= {"clr_1"}


def test_payloads_need_not_be_kept(lake: LakeFiles, tmp_path: Path) -> None:
    result, _said = replay(lake, write(tmp_path, lines(ONE)), keep_raw=False)
    assert result.landed == 1
    assert lake.raw_logs() == []
    assert len(rows(lake, "run_id")) == 1


def test_what_a_dead_load_had_logged_lands_first(lake: LakeFiles, tmp_path: Path) -> None:
    load = Load(lake, command="fetch", source="test")
    load.take_run("clr_2", json.dumps(TWO).encode(), fetched_at=NOON, is_detail=True, workspace_id=None)
    load.checkpoint()
    load.close()
    assert counts(replay(lake, write(tmp_path, lines(ONE)))[0]) == (1, 1, 0, 0)
    assert [run_id for (run_id,) in rows(lake, "run_id")] == ["clr_1", "clr_2"]


# What is no payload


def test_unusable_things_are_named_with_their_place_and_the_rest_lands(lake: LakeFiles, tmp_path: Path) -> None:
    text = lines(ONE)
    text += "\n{broken\n"
    text += lines(5, None, "clr_8", [TWO, 7], {"object": "classify_run"}, {"object": "file", "id": "file_1"})
    text += lines({"object": "classify_run", "id": 5}, {"id": "clr_4", "status": "PROCESSED"}, {})
    text += lines({"eventType": "classify_run.processed", "payload": {"url": "https://files.example.com/x"}})
    text += lines({"eventType": "x", "payload": "https://files.example.com/x"}, {"record": "run", "payload": {}})
    text += json.dumps(classify("clr_5"))[:-10] + "\n"
    text += lines(classify("clr_6"))
    name = write(tmp_path, text)
    result, said = replay(lake, name)
    assert said.places == [f"{name}:{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16)]
    assert counts(result) == (4 + 13, 4, 0, 13)
    assert [run_id for (run_id,) in rows(lake, "run_id")] == ["clr_1", "clr_2", "clr_4", "clr_6"]
    why = [reason for _place, reason in said]
    assert why[0].startswith("not JSON (")
    assert why[1:5] == [
        f"a JSON object was expected, not {name}" for name in ("int", "NoneType", "str", "int")
    ]  # fmt: skip
    assert "without the `id` of a run (object: 'classify_run')" in why[5]
    assert "'file_1' is not of a known kind of run (object: 'file')" in why[6]
    assert "a webhook event 'classify_run.processed' that does not hold a run, but a link" in why[9]
    with Lake(lake.folder) as catalog:
        assert catalog.sql("SELECT state, requested, landed, invalid FROM loads").fetchall() == [
            ("complete", 17, 4, 13)
        ]  # fmt: skip
    assert not result.is_complete


def test_unusable_things_on_standard_input_are_named_so(lake: LakeFiles) -> None:
    result, said = replay(lake, "-", stdin=io.BytesIO((lines(ONE) + "oops\n").encode()))
    assert (said.places, counts(result)) == (["standard input:2"], (2, 1, 0, 1))


def test_a_broken_first_line_loses_that_line_alone(lake: LakeFiles, tmp_path: Path) -> None:
    name = write(tmp_path, '{"object": "classify_run", "id\n' + lines(ONE, TWO) + "}\n" + lines(classify("clr_3")))
    result, said = replay(lake, name)
    assert (said.places, counts(result)) == ([f"{name}:1", f"{name}:4"], (5, 3, 0, 2))


def test_a_broken_document_is_named_once(lake: LakeFiles, tmp_path: Path) -> None:
    name = write(tmp_path, "\n\n" + json.dumps([ONE, TWO], indent=2)[:-20])
    result, said = replay(lake, name)
    assert (said.places, counts(result)) == ([f"{name}:3"], (1, 0, 0, 1))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\x01", b"PAR1\x00\x00", lines(ONE).encode("utf-16"), b"run_id\nclr_1\n"]
)
def test_a_file_of_something_else_is_named_and_the_others_land(lake: LakeFiles, tmp_path: Path, content: bytes) -> None:
    names = [write(tmp_path, content, "odd"), write(tmp_path, lines(ONE), "good")]
    result, said = replay(lake, *names)
    assert result.landed == 1
    assert result.invalid == len(said) > 0
    assert {place.rpartition(":")[0] for place in said.places} == {names[0]}


def test_json_nested_beyond_reason_is_named_and_the_rest_lands(lake: LakeFiles, tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        return f'{{"object": "classify_run", "id": "clr_{depth}", "metadata": {"[" * depth}{"]" * depth}}}\n'

    # Some of these can just be read, and not written or read again a level further down.
    depths = range(940, 1010)
    result, said = replay(lake, write(tmp_path, lines(ONE) + "".join(map(nested, depths)) + nested(100_000)))
    assert result.landed + result.invalid == result.requested == len(depths) + 2
    assert len(said) <= result.invalid
    assert ("clr_1",) in rows(lake, "run_id")


# Packed files that are not whole

NOISE = random.Random(1)
MANY = [classify(f"clr_{number}", metadata={"noise": NOISE.randbytes(12).hex()}) for number in range(2_000)]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [1, 9, 0.5])
def test_a_packed_file_that_breaks_off_is_named_and_what_came_before_lands(
    lake: LakeFiles, tmp_path: Path, packing: str, cut: float
) -> None:
    content = PACKINGS[packing](lines(*MANY).encode())
    kept = len(content) // 2 if cut == 0.5 else len(content) - int(cut)
    names = [write(tmp_path, content[:kept], "torn"), write(tmp_path, lines(classify("clr_whole")), "whole")]
    result, said = replay(lake, *names)
    assert result.invalid == len(said) >= 1
    # A half line before the break may be named as well.
    assert said.places[-1] == names[0]
    assert "cannot be read to its end" in said[-1][1]
    assert result.landed + result.invalid == result.requested
    landed = {run_id for (run_id,) in rows(lake, "run_id")}
    assert "clr_whole" in landed
    assert landed <= {"clr_whole", *(payload["id"] for payload in MANY)}
    assert len(landed) > (1 if cut == 0.5 and packing == "gzip" else 0)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_small_packed_file_that_breaks_off_is_named(lake: LakeFiles, tmp_path: Path, packing: str) -> None:
    name = write(tmp_path, PACKINGS[packing](lines(ONE, TWO).encode())[:-5])
    result, said = replay(lake, name)
    assert said.places[-1] == name
    assert result.invalid == len(said)


def test_a_packed_file_whose_second_part_is_missing_its_end_is_named(lake: LakeFiles, tmp_path: Path) -> None:
    frames = [zstandard.compress(lines(payload).encode()) for payload in (ONE, TWO)]
    name = write(tmp_path, frames[0] + frames[1][:-3])
    result, said = replay(lake, name)
    assert said.places[-1] == name
    assert ("clr_1",) in rows(lake, "run_id")
    assert result.invalid == len(said)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("at", [4, 10, 12, 40, -6])
def test_a_packed_file_that_is_damaged_is_named_and_the_others_land(
    lake: LakeFiles, tmp_path: Path, packing: str, at: int
) -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True)
    content = bytearray(gzip.compress(lines(*MANY).encode()) if packing == "gzip"
                        else frame.compress(lines(*MANY).encode()))  # fmt: skip
    content[at : at + 3 or None] = bytes(byte ^ 0xFF for byte in content[at : at + 3 or None])
    names = [write(tmp_path, bytes(content), "damaged"), write(tmp_path, lines(classify("clr_whole")), "whole")]
    result, said = replay(lake, *names)
    if (packing, at) == ("gzip", 4):
        # Those bytes are the time of packing, which says nothing of the content.
        assert (said, result.landed) == ([], len(MANY) + 1)
        return
    assert result.invalid == len(said) >= 1
    assert ("clr_whole",) in rows(lake, "run_id")


# Files that are not there


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_not_there_is_refused_before_anything_lands(lake: LakeFiles, tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    good, bad = write(tmp_path, lines(ONE)), str(tmp_path / kind)
    with pytest.raises(UsageError, match="no such file") as refused:
        replay(lake, good, bad)
    assert bad in str(refused.value)
    assert not lake.folder.exists()


def test_a_pipe_is_read_like_a_file(lake: LakeFiles) -> None:
    """`pipeline load <(zcat …)` names a pipe."""
    reading, writing = os.pipe()
    try:
        os.write(writing, lines(ONE).encode())
        os.close(writing)
        result, said = replay(lake, f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    assert (said, counts(result)) == ([], (1, 1, 0, 0))


def test_no_payload_at_all_is_an_empty_load(lake: LakeFiles, tmp_path: Path) -> None:
    result, said = replay(lake, write(tmp_path, gzip.compress(b"")), write(tmp_path, b"", "b"))
    assert (said, counts(result), result.is_complete) == ([], (0, 0, 0, 0), True)
    assert land(lake, ONE).landed == 1
