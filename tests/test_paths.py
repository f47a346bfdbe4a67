"""IDs and days from outside: none leaves its folder, and none changes which URL is asked for."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import cli
from pipeline.client import ExtendClient
from pipeline.config import Connection, Secret, read_connection
from pipeline.errors import PipelineError, UsageError
from pipeline.kinds import KINDS, kind_of
from pipeline.limiter import Limiter
from tests.conftest import classify

PREFIXES = [kind.prefix for kind in KINDS]
PARTS = [
    "../", "..\\", "..",
    "/", "\\", "%2f", "%2e%2e%2f", "?", "#", "&x=1", "\0", "\n", "\r\nX-Odd: 1", " ", ":", "@", ";",
    "．．／", "∕", "ａ", "é", "\u202e", "a", "B9", "-", "_", "x" * 200,
]  # fmt: skip
TAILS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=5).map("".join), st.text(max_size=20))
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def asked_for(run_id: str) -> list[str]:
    """Return the paths, as they go over the wire, that fetching an ID asks for."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(404, json={"code": "NOT_FOUND"})

    async def fetch() -> None:
        connection = Connection("https://api.test", Secret("key"))
        async with ExtendClient(connection, limiter=Limiter(1000), transport=httpx.MockTransport(answer)) as client:
            await client.fetch_run(run_id)

    with pytest.raises((ValueError, PipelineError)):
        asyncio.run(fetch())
    return asked


@settings(max_examples=60, deadline=None)
@given(prefix=st.sampled_from(PREFIXES), tail=TAILS)
def test_an_id_is_asked_for_under_its_own_path_or_not_at_all(prefix: str, tail: str) -> None:
    run_id = prefix + tail
    asked = asked_for(run_id)
    if 1 <= len(tail) <= 128 and set(tail) <= LETTERS:
        assert len(asked) == 1
        path = asked[0].partition("?")[0]
        assert path.count("/") == 2
        assert path.endswith(f"/{run_id}")
    elif kind_of(run_id) is None:
        assert asked == []
    else:
        # The tail completes a longer prefix, as `workflow_run_` does: still nothing but what an ID may hold.
        assert set(run_id) <= LETTERS


@pytest.mark.parametrize(
    "text", ["..", "../x", "ws_../x", "ws_a/b", "ws_a%2fb", "ws_a\\b", "ws_a\nb", "ws_a\0", "ws_é"]
)
def test_a_workspace_which_names_a_folder_is_refused_where_it_is_more_than_a_name(text: str) -> None:
    with pytest.raises(UsageError, match="no workspace ID"):
        read_connection(workspace=text, env={"EXTEND_API_KEY": "key"})


HOSTILE = [
    "../../out",
    "/tmp/out",
    "a/../../b",
    "%2e%2e%2fout",
    "a\0b",
    "a\nb",
    "\\\\host\\share",
    "．．／out",
    "x" * 5000,
]
DAYS = [
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "../../../out",
    "2026-11-02T../../..",
    "2026-13-45T00:00:00Z",
]


def test_nothing_in_a_payload_leaves_the_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payloads = [classify(f"clr_{text}") for text in HOSTILE]
    for number, text in enumerate(HOSTILE):
        told = {"id": text, "name": text, "version": text}
        payloads.append(classify(f"clr_f{number}", file=told, classifier=told, batchId=text, metadata={text: text}))
    payloads += [classify(f"clr_d{number}", createdAt=day, file={"id": "f"}) for number, day in enumerate(DAYS)]
    (tmp_path / "saved.jsonl").write_text("\n".join(map(json.dumps, payloads)))
    assert cli.main(["load", "saved.jsonl", "--lake", "deep/lake", "--quiet"]) in (0, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "saved.jsonl"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["lake"]
    days = {path.name for path in (tmp_path / "deep" / "lake" / "runs").iterdir()}
    # What is no time has no day; the last moment of year 9999 in that zone is no time in UTC.
    assert days <= {"day=2026-11-02", "day=0001-01-01", "day=9999-12-31", "day=unknown"}
    assert {"day=2026-11-02", "day=unknown"} <= days
    (log,) = (tmp_path / "deep" / "lake" / "raw").rglob("*.jsonl.zst")
    assert log.parent.name == f"{datetime.now(UTC):%Y-%m}"
