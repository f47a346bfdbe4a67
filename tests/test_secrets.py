"""A canary for a key: whatever a command does and however it fails, the key stands in nothing that was written."""

import base64
import dataclasses
import json
import os
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import duckdb
import httpx
import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
import zstandard
from nbclient import NotebookClient
from rich.pretty import pretty_repr

from pipeline.client import ExtendClient
from pipeline.config import Connection, Secret, read_connection, read_connections
from pipeline.connections import PooledTransport
from pipeline.errors import UsageError
from pipeline.limiter import Limiter
from pipeline.transport import HttpxTransport
from tests.conftest import classify

HALVES = ("kF7xQ2mVb9LwT4zR", "Nc8sYh3GdJ6pUe5A")
KEY = f'sk_{HALVES[0]}/"{HALVES[1]}'
"""With characters that JSON, URLs and shells write otherwise."""
ROOT = Path(__file__).parent.parent


class Echo(BaseHTTPRequestHandler):
    """Answers with the key that it was asked with, wherever an answer can hold a text."""

    protocol_version = "HTTP/1.1"
    server: "EchoServer"

    def do_GET(self) -> None:
        key = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        self.server.echoed += key == KEY
        path, _, _query = self.path.partition("?")
        last = path.rpartition("/")[2]
        told = {"code": "ODD", "message": f"Bearer {key} is odd, {key}!", "requestId": key, "retryable": False}
        if last == "clr_redirect":
            self.answer(302, told, location=f"https://x.test/{quote(key)}?key={quote(key)}")
        elif last.startswith("clr_http"):
            self.answer(int(last.removeprefix("clr_http")), told)
        elif last == "clr_other":
            self.answer(200, classify(key))
        elif last == "clr_none":
            self.answer(200, told)
        elif last.startswith("clr_"):
            self.answer(200, echoing(last, key))
        elif path == "/classify_runs":
            self.answer(200, {"object": "list", "data": [echoing("clr_listed", key)], "nextPageToken": None})
        else:
            self.answer(200, {"object": "list", "data": [], "nextPageToken": None})

    def answer(self, status: int, payload: object, **headers: str) -> None:
        body = json.dumps(payload).replace("/", "\\/").encode()
        self.send_response(status)
        for name, value in {"x-request-id": f"req {KEY}", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def echoing(run_id: str, key: str) -> dict[str, Any]:
    """Return a run that quotes the key in what is kept of it."""
    return classify(
        run_id, status="FAILED", failureReason="ODD", failureMessage=f"the key {key} is odd", usage={"credits": 1.5},
        metadata={"authorization": f"Bearer {key}", key: "as a key"}, classifier={"id": "cl_1", "name": key},
        file={"id": "file_1", "name": f"{key}.pdf"}, unknown=[{"deep": key}],
    )  # fmt: skip


class EchoServer(ThreadingHTTPServer):
    daemon_threads = True
    echoed = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """A server that quotes the key back."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def run(folder: Path, *commands: list[str], crash: str | None = None, dev: bool = False, **environment: str) -> str:
    """Run commands in a child that tells all it can; return what it said, kept in the folder to be searched too."""
    known = {name: value for name, value in os.environ.items() if not name.upper().startswith(("EXTEND_", "PIPELINE_"))}
    done = subprocess.run(
        [sys.executable, *(["-X", "dev", "-W", "ignore"] if dev else []), "-m", "tests.canary_child",
         json.dumps({"commands": commands, "crash": crash})],
        cwd=folder, env={**known, "PYTHONPATH": str(ROOT), "EXTEND_API_KEY": KEY, **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    said = done.stdout + done.stderr
    (folder / f"said-{len(list(folder.iterdir()))}.txt").write_text(said)
    return said


def forms_of(key: str) -> list[bytes]:
    """Return what the key looks like as it is, in part, and written otherwise."""
    coded = {key, json.dumps(key)[1:-1], quote(key), quote(key, safe=""), quote_plus(key), key.encode().hex(), *HALVES}
    # In base64 what stands before the key shifts it by up to two bytes; the ends depend on their neighbours.
    shifted = (base64.b64encode(b"x" * shift + key.encode())[4:-4] for shift in range(3))
    return [*(form.encode() for form in sorted(coded)), *shifted]


def iter_contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name of every file and its bytes, those of logs and tables also unpacked."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(folder)), path.read_bytes()
        yield name, name.encode() + b"\n" + content
        if path.name.endswith(".zst"):
            with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
                yield f"{name}, unpacked", reader.read()
        elif path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                rows = repr(file.read().to_pylist()) + repr(file.metadata.metadata)
            yield f"{name}, rows", rows.encode()
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as con:
                for (table,) in con.sql("SELECT table_name FROM duckdb_tables()").fetchall():
                    yield f"{name}, {table}", repr(con.table(table).fetchall()).encode()


def leaks(folder: Path) -> list[str]:
    """Return where any form of the key was found."""
    return [
        f"{form!r} in {name}" for name, content in iter_contents(folder) for form in forms_of(KEY) if form in content
    ]


FETCHED = ["clr_ok", "clr_other", "clr_none", "clr_redirect", "clr_http404", "clr_http500", "clr_http422"]


def test_a_key_that_the_api_quotes_in_every_text_is_nowhere_in_what_was_written(
    tmp_path: Path, echo: EchoServer
) -> None:
    lake = ["--lake", "lake"]
    said = run(
        tmp_path,
        ["fetch", *FETCHED, *lake, "--qps", "1000"],
        ["sql", "SELECT * FROM runs, dead_letters, loads", "--format", "json", *lake],
        ["sql", "SELECT no_such_column FROM runs", *lake],
        ["report", "failures", "--format", "html", *lake],
        EXTEND_BASE_URL=echo.base_url,
    )
    # What was to be tested did happen.
    assert "exit 3 fetch" in said, said
    assert "DEBUG:asyncio" in said
    assert said.count("[secret]") > 10
    assert echo.echoed >= len(FETCHED)
    assert dict(iter_contents(tmp_path)).keys() >= {"lake/dead_letters.parquet, rows"}
    (log,) = (content for name, content in iter_contents(tmp_path) if name.endswith("zst, unpacked"))
    assert b'"failureMessage": "the key [secret] is odd"' in log
    assert leaks(tmp_path) == []


@pytest.mark.parametrize(
    ("crash", "expected"),
    [
        ("taking", "'is_detail': True"),
        pytest.param("transport", "a bug: ZeroDivisionError", marks=pytest.mark.long),
        pytest.param("workspace", "env = <environment>", marks=pytest.mark.long),
    ],
)
def test_a_crash_shows_every_local_and_no_key(tmp_path: Path, echo: EchoServer, crash: str, expected: str) -> None:
    said = run(
        tmp_path, ["fetch", "clr_ok", "--lake", "lake", "--qps", "1000"], crash=crash, EXTEND_BASE_URL=echo.base_url
    )
    assert "a bug, injected" in said, said
    assert expected in said
    assert leaks(tmp_path) == []


# What is at hand where a key is read or held


@pytest.mark.parametrize(
    "variables",
    [
        {"EXTEND_API_KEY": f"Bearer {KEY}"},
        {"EXTEND_API_KEY": f"{KEY} {KEY}"},
        {"EXTEND_API_KEY": KEY, "EXTEND_WORKSPACE_ID": KEY},
        {"EXTEND_API_KEY": KEY, "EXTEND_BASE_URL": f"https://{KEY}@x.test"},
        {"EXTEND_API_KEY": KEY, "EXTEND_REGION": "no region"},
        {"EXTEND_API_KEYS": KEY},
        {"EXTEND_API_KEYS": f"ws_a={KEY} ws_a={KEY}"},
        {"EXTEND_API_KEYS": f"ws_a=Bearer\xa0{KEY}é"},
    ],
)
@pytest.mark.parametrize("read", [read_connection, read_connections])
def test_a_key_that_is_refused_stands_in_no_frame_of_the_traceback(
    variables: Mapping[str, str], read: Callable[..., object]
) -> None:
    try:
        read(env=variables)
    except UsageError as error:
        found = traceback.TracebackException.from_exception(error, capture_locals=True)
        # The first frame is this test's own.
        text = str(error) + repr([frame.locals for frame in found.stack[1:]])
        assert len(found.stack) > 1
        assert not any(half in text for half in HALVES)
    else:
        # Not everything is wrong for both: one of them reads one key, and the other several.
        assert "EXTEND_API_KEYS" in variables or read is read_connections


def test_what_holds_a_key_shows_a_mask_in_its_place() -> None:
    connection = Connection("https://x.test", Secret(KEY), "ws_a")
    client = ExtendClient(connection, limiter=Limiter(10))
    secret = connection.api_key
    pool = PooledTransport(connection, timeout_s=1, proxy=f"http://user:{HALVES[0]}@127.0.0.1")
    given = HttpxTransport(httpx.MockTransport(lambda request: httpx.Response(200)), connection, timeout_s=1)
    held_by = (connection, client, secret, [secret], {"a": secret}, pool, given)
    texts = [f"{held!r} {held} {pretty_repr(held)}" for held in held_by]
    texts += [repr(dataclasses.asdict(connection)), *(f"{vars(each)}" for each in (client, pool, given))]
    assert "[secret]" in texts[0]
    assert "[secure]" in texts[-1]
    assert not any(half in text for text in texts for half in HALVES)


@pytest.mark.parametrize("name", ["log.jsonl.zst", "rows.parquet", "page.html", f"{HALVES[0]}.txt"])
def test_a_key_that_does_stand_somewhere_is_found(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, json.dumps({"quoted": KEY})
    if name.endswith(".zst"):
        path.write_bytes(zstandard.compress(text.encode()))
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"told": [[{"key": KEY}]]}), path)
    else:
        path.write_text(base64.b64encode(f"Bearer {KEY}".encode()).decode())
    assert leaks(tmp_path) != []


@pytest.mark.long
def test_no_command_writes_the_key_whatever_it_is_for(tmp_path: Path, echo: EchoServer) -> None:
    lake = ["--lake", "lake"]
    (tmp_path / "saved.json").write_text(json.dumps(classify("clr_saved")))
    said = run(
        tmp_path,
        ["sync", "--qps", "1000", *lake],
        ["fetch", "clr_http500", "clr_http404", "--json", *lake],
        ["retry", *lake],
        ["load", "saved.json", *lake],
        *(["report", name, *lake] for name in ("credits", "failures", "latency")),
        ["report", "credits", "--by", "metadata.authorization,processor", "--sql", *lake],
        ["report", "credits", "--rate", "nowhere.csv", *lake],
        ["report", "failures", "--where", "no_such = 1", *lake],
        ["dashboard", "--output", "page.html", *lake],
        ["sql", "FROM read_text('/proc/self/environ')", *lake],
        ["sql", "--unlocked", "FROM read_text('/nowhere')", *lake],
        ["status", *lake],
        ["check", *lake],
        ["export", "csv", "runs.csv", *lake],
        ["export", "parquet", "runs.parquet", *lake],
        ["export", "duckdb", "lake.duckdb", *lake],
        ["forget", "clr_ok", "--yes", *lake],
        ["rebuild", *lake],
        dev=True,
        EXTEND_BASE_URL=echo.base_url,
    )
    for command in ("sync", "report credits", "dashboard", "status", "check", "export duckdb"):
        assert f"exit 0 {command}" in said, said[-5000:]
    for command in ("fetch", "retry"):
        assert f"exit 3 {command}" in said
    assert "exit 2 sql FROM read_text" in said
    assert {path.name for path in tmp_path.iterdir()} >= {"page.html", "runs.csv", "runs.parquet", "lake.duckdb"}
    assert leaks(tmp_path) == []


@pytest.mark.long
def test_no_way_of_not_being_answered_writes_the_key(tmp_path: Path, echo: EchoServer) -> None:
    fetch = ["fetch", "clr_ok", "--lake", "lake", "--qps", "1000"]
    for status in (401, 402, 403):
        said = run(tmp_path, ["fetch", f"clr_http{status}", *fetch[2:]], EXTEND_BASE_URL=echo.base_url)
        assert f"pipeline: HTTP {status} ODD" in said
        assert "exit 1 fetch" in said
    authority = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_cert(context)
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        said = run(tmp_path, fetch, EXTEND_BASE_URL=server.base_url.replace("http", "https"))
        assert "certificate cannot be verified" in said
        said = run(tmp_path, fetch, EXTEND_BASE_URL=server.base_url)
        assert "exit 3 fetch" in said
        server.shutdown()
        assert server.echoed == 0
    # Nobody listens there any more; and a proxy that refuses, with a password of its own.
    said = run(tmp_path, fetch, EXTEND_BASE_URL=server.base_url)
    assert "CONNECTION_FAILED" in said
    proxy = f"http://user:{HALVES[0]}@127.0.0.1:{echo.server_port}"
    said = run(tmp_path, fetch, EXTEND_BASE_URL="https://api.example.test", HTTPS_PROXY=proxy, NO_PROXY="", no_proxy="")
    assert "exit 1 fetch" in said or "exit 3 fetch" in said
    assert leaks(tmp_path) == []


CELLS = (
    "%xmode Verbose",
    "import os\nfrom pipeline import Lake, fetch_runs\nfrom pipeline.config import read_connection\n"
    "connection = read_connection(env=os.environ)\nconnection",
    "print(connection, vars(connection) if hasattr(connection, '__dict__') else '')",
    "fetch_runs(['clr_ok', 'clr_http500', 'clr_none'], lake='lake', qps=1000)",
    "Lake('lake').runs().df()",
    "Lake('lake').sql('FROM dead_letters').df()",
    "Lake('lake').sql('SELECT no_such_column FROM runs')",
    "fetch_runs(['clr_ok'], lake='lake', qps=-1)",
    "from pipeline.limiter import Limiter\nasync def fail(*_arguments):\n    raise ZeroDivisionError('a bug')\n"
    "Limiter.acquire = fail\nfetch_runs(['clr_new'], lake='lake', qps=1000)",
)


@pytest.mark.long
def test_a_notebook_holds_no_key_also_where_its_tracebacks_show_every_local(tmp_path: Path, echo: EchoServer) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    known = {name: value for name, value in os.environ.items() if not name.upper().startswith(("EXTEND_", "PIPELINE_"))}
    environment = {"EXTEND_API_KEY": KEY, "EXTEND_BASE_URL": echo.base_url, "PYTHONPATH": str(ROOT)}
    NotebookClient(
        notebook, allow_errors=True, kernel_name="python3", timeout=60, resources={"metadata": {"path": str(tmp_path)}}
    ).execute(env={**known, **environment, "IPYTHONDIR": str(tmp_path / "ipython")})
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    content = (tmp_path / "notebook.ipynb").read_text()
    for words in ("clr_http500", "no_such_column", "the key [secret] is odd", "ZeroDivisionError", "--qps must be"):
        assert words in content
    assert echo.echoed
    assert leaks(tmp_path) == []
