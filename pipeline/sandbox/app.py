"""The sandbox's HTTP side: an ASGI application that answers as the API does, and goes wrong on request."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from pipeline.kinds import API_VERSION, KINDS, Kind

from .faults import Faults
from .limits import Hint, TokenBucket, retry_headers
from .listing import InvalidRequestError, Listing, ParseOrder
from .model import Run, instant
from .results import iter_parse_chunks
from .world import Payload, World

Headers = list[tuple[bytes, bytes]]

_BY_PATH: dict[str, Kind] = {kind.path.strip("/"): kind for kind in KINDS}
_HUGE_CHUNKS = 200
_PIECE_BYTES = 256 * 1024
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_JSON_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_JSON: Headers = [(b"content-type", b"application/json; charset=utf-8")]
_PAGE: Headers = [(b"content-type", b"text/html")]
_FAULT_HINTS: dict[str, Hint] = {
    "429_no_hint": "absent",
    "429_seconds": "seconds",
    "429_date": "date",
    "429_zero": "zero",
    "429_ms": "ms",
    "429_reset": "reset",
}


class Refusal(Exception):
    """The request is refused with this status and error body."""

    def __init__(self, status: int, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.retryable = status, code, retryable
        self.headers: Headers = []


@dataclass(frozen=True, slots=True)
class _Request:
    """One request and the way back: `place` is the path's segments, `run_id` the one asked for by ID."""

    ordinal: int
    method: str
    place: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    run_id: str | None
    receive: Receive
    send: Send
    transport: asyncio.Transport | None


class SandboxApp:
    """Serve a world: `key` reaches its first workspace, `key` + `-org` all, with the workspace's header.

    `asked` counts by-ID requests by run ID, whatever came of them; `answered` complete and correct answers to them.
    `asked_lists` counts list requests by path. `removed_lists` names kinds (`edit_run`) whose list endpoint is gone;
    `on_request` is called with each request's path before its answer is made, in the server's own thread, which serves
    nothing meanwhile. These two and `faults` may be changed while it runs. What shapes the lists is said at `Listing`.
    """

    def __init__(
        self,
        world: World,
        *,
        key: str = "sandbox",
        limit_qps: float = 0,
        retry_after: Hint = "seconds",
        faults: Faults | None = None,
        largest_page: int = 100,
        compress: bool = False,
        removed_lists: Collection[str] = (),
        short_pages: bool = True,
        parse_order: ParseOrder = "scattered",
        token_life: int | None = None,
        on_request: Callable[[str], None] | None = None,
    ) -> None:
        self.world = world
        self.key = key
        self.org_key = f"{key}-org"
        self.faults = faults
        self.retry_after: Hint = retry_after
        self.compress = compress
        self.removed_lists = frozenset(removed_lists)
        self.on_request = on_request
        self.bucket = TokenBucket(limit_qps)
        self.listing = Listing(
            world, largest_page=largest_page, short_pages=short_pages, parse_order=parse_order, token_life=token_life
        )
        self.asked: Counter[str] = Counter()
        self.asked_lists: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.requests = 0
        self.rate_limited = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = self._read(scope, receive, send)
        if self.on_request is not None:
            self.on_request(scope["path"])
        try:
            workspace = self._admit(request)
            faults = self.faults
            fault = faults.draw(request.ordinal) if faults is not None else None
            if faults is None or fault is None or not await self._fail(fault, faults, request, workspace):
                await self._answer(request, workspace)
        except Refusal as refusal:
            await self._refuse(request, refusal)

    # Who may ask what

    def _read(self, scope: Scope, receive: Receive, send: Send) -> _Request:
        self.requests += 1
        place = tuple(scope["path"].strip("/").split("/"))
        run_id = place[1] if len(place) == 2 and place[0] in _BY_PATH else None
        if run_id is not None and scope["method"] == "GET":
            self.asked[run_id] += 1
        elif len(place) == 1 and place[0] in _BY_PATH and scope["method"] == "GET":
            self.asked_lists[f"/{place[0]}"] += 1
        connection = scope.get("extensions", {}).get("sandbox.connection", {})
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        return _Request(
            self.requests, scope["method"], place, query, dict(scope["headers"]), run_id,
            receive, send, connection.get("transport"),
        )  # fmt: skip

    def _admit(self, request: _Request) -> str:
        """Return the workspace that the request may read, or raise what refuses it."""
        if request.place[0] not in _BY_PATH and request.place[0] != "batch_runs":
            raise Refusal(404, "NOT_FOUND", f"No such path: /{'/'.join(request.place)}"[:200])
        if request.method != "GET":
            raise Refusal(405, "METHOD_NOT_ALLOWED", "The sandbox only reads: use GET")
        workspace = self._authorize(request.headers)
        wait_s = self.bucket.wait_s()
        if wait_s > 0:
            raise self._too_many(self.retry_after, wait_s)
        return workspace

    def _authorize(self, headers: Mapping[bytes, bytes]) -> str:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme != "Bearer" or token not in (self.key, self.org_key):
            raise Refusal(401, "UNAUTHORIZED", "The API key is missing or invalid")
        version = headers.get(b"x-extend-api-version", b"").decode("latin-1")
        if version != API_VERSION:
            raise Refusal(400, "INVALID_REQUEST", f"x-extend-api-version must be {API_VERSION}")
        named = headers.get(b"x-extend-workspace-id", b"").decode("latin-1")
        first = self.world.workspaces[0]
        if token == self.org_key and not named:
            raise Refusal(400, "INVALID_REQUEST", "x-extend-workspace-id is required with an organization-wide key")
        if named not in (self.world.workspaces if token == self.org_key else ("", first)):
            raise Refusal(403, "FORBIDDEN", "The API key has no access to this workspace")
        return named or first

    def _too_many(self, hint: Hint, wait_s: float) -> Refusal:
        refusal = Refusal(429, "RATE_LIMIT_EXCEEDED", "Too many requests; slow down", retryable=True)
        refusal.headers = retry_headers(hint, wait_s)
        self.rate_limited += 1
        return refusal

    # Answers

    async def _answer(self, request: _Request, workspace: str) -> None:
        if request.run_id is None:
            await self._send_json(request, self._collection(request, workspace))
            return
        run = self._delivered(request, workspace)
        if self._is_huge(run, request):
            if not await self._stream(request, run):
                return
        else:
            payload = self.world.detail(run.run_id, request.query.get("responseType"))
            await self._send_json(request, payload)
        self.answered[run.run_id] += 1

    def _collection(self, request: _Request, workspace: str) -> Payload:
        if request.place[0] == "batch_runs":
            return self._batch(request, workspace)
        kind = _BY_PATH[request.place[0]]
        if len(request.place) > 1 or not kind.listed:
            raise Refusal(404, "NOT_FOUND", f"No such path: /{'/'.join(request.place)}"[:200])
        if kind.object in self.removed_lists:
            raise Refusal(410, "ENDPOINT_REMOVED", f"GET {kind.path} is not available any more")
        try:
            return self.listing.page(kind, workspace, request.query)
        except InvalidRequestError as error:
            raise Refusal(400, "INVALID_REQUEST", str(error)) from error

    def _batch(self, request: _Request, workspace: str) -> Payload:
        found = self.world.batch(request.place[1], workspace) if len(request.place) == 2 else None
        if found is None:
            raise Refusal(404, "NOT_FOUND", "Batch run not found")
        batch, count = found
        created_at = instant(batch.created_at, 3)
        return {"object": "batch_run", "id": batch.batch_id, "status": batch.status, "runCount": count,
                "createdAt": created_at}  # fmt: skip

    def _find(self, request: _Request, workspace: str) -> Run:
        kind = _BY_PATH[request.place[0]]
        run = self.world.find(request.run_id or "", kind)
        if run is None or run.workspace != workspace:
            raise Refusal(404, "NOT_FOUND", f"{kind.name.replace('_', ' ').capitalize()} run not found")
        if kind.object == "parse_run" and request.query.get("responseType", "json") not in ("json", "url"):
            raise Refusal(400, "INVALID_REQUEST", "responseType must be json or url")
        return run

    def _delivered(self, request: _Request, workspace: str) -> Run:
        """Return the run asked for, and with it the right to its result, which some have to give once only."""
        run = self._find(request, workspace)
        if not self.world.take(run.run_id):
            raise Refusal(404, "NOT_FOUND", "Verify run not found")
        return run

    def _is_huge(self, run: Run, request: _Request) -> bool:
        return (
            run.result_chunks > _HUGE_CHUNKS
            and run.status == "PROCESSED"
            and request.query.get("responseType") != "url"
        )

    async def _stream(self, request: _Request, run: Run) -> bool:
        """Send a huge parse output piece by piece, never holding all of it; return False where the asker left."""
        send = request.send
        await send({"type": "http.response.start", "status": 200, "headers": _JSON})
        for piece in _iter_huge(self.world.detail(run.run_id, "url"), run):
            if request.transport is not None and request.transport.is_closing():
                return False
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # the other requests go on
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    async def _refuse(self, request: _Request, refusal: Refusal) -> None:
        body = _error(request, refusal.code, str(refusal), retryable=refusal.retryable)
        await _send(request.send, refusal.status, [*_JSON, *refusal.headers], body)

    async def _send_json(self, request: _Request, payload: Payload) -> None:
        body, headers = _encode(payload), _JSON
        if self.compress and len(body) > 1024 and b"gzip" in request.headers.get(b"accept-encoding", b""):
            body, headers = gzip.compress(body, 1), [*_JSON, (b"content-encoding", b"gzip")]
        await _send(request.send, 200, headers, body)

    # Faults

    async def _fail(self, fault: str, faults: Faults, request: _Request, workspace: str) -> bool:
        """Let the request go wrong in this way; return False where the fault does not fit, and it must be answered."""
        send = request.send
        if fault in _FAULT_HINTS:
            hint = _FAULT_HINTS[fault]
            raise self._too_many(hint, 0.05 if hint == "ms" else 1.0)
        if fault == "500":
            raise Refusal(500, "INTERNAL_ERROR", "An unexpected error occurred", retryable=True)
        if fault == "502_html":
            await _send(send, 502, _PAGE, _HTML)
        elif fault == "503_empty":
            await _send(send, 503, [], b"")
        elif fault == "html_200":
            await _send(send, 200, _PAGE, _HTML)
        elif fault == "error_200":
            await _send(send, 200, _JSON, _error(request, "INTERNAL_ERROR", "An unexpected error", retryable=True))
        elif fault == "hang":
            await self._hang(faults.hang_s, request)
        elif fault == "other_run":
            return await self._send_other(request, workspace)
        else:
            return await self._spoil(fault, faults, request, workspace)
        return True

    async def _send_other(self, request: _Request, workspace: str) -> bool:
        if request.run_id is None:
            return False
        kind = self._find(request, workspace).kind
        others = (run for run in self.world.iter_runs(workspace, kind.object) if run.run_id != request.run_id)
        other = next(others, None)
        if other is None:
            return False
        await self._send_json(request, self.world.detail(other.run_id, "url"))
        return True

    async def _spoil(self, fault: str, faults: Faults, request: _Request, workspace: str) -> bool:
        """Make the answer and spoil it on its way."""
        send = request.send
        if request.run_id is None:
            payload = self._collection(request, workspace)
        else:
            huge = self._is_huge(self._find(request, workspace), request)
            if huge and fault == "slow":
                return False  # it is slow as it is
            run = self._delivered(request, workspace)
            payload = self.world.detail(run.run_id, "url" if huge else request.query.get("responseType"))
        body = _encode(payload)
        half = len(body) // 2
        if fault == "cut_json":
            await _send(send, 200, _JSON, body[:half])
            return True
        if fault == "slow":
            await _drip(send, body, faults.slow_s)
            if request.run_id is not None:
                self.answered[request.run_id] += 1
            return True
        await _start(send, 200, _JSON, len(body))
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await asyncio.sleep(0.01)  # let the first half leave before the connection dies
        await _disconnect(request, hard=fault == "reset")
        return True

    async def _hang(self, seconds: float, request: _Request) -> None:
        try:
            await asyncio.wait_for(_until_disconnect(request.receive), seconds)
        except TimeoutError:
            await _disconnect(request, hard=False)


def _iter_huge(payload: Payload, run: Run) -> Iterator[bytes]:
    payload.pop("outputUrl", None)
    yield _encode(payload)[:-1] + b',"output":{"chunks":['
    piece = bytearray()
    for number, chunk in enumerate(iter_parse_chunks(run)):
        piece += (b"," if number else b"") + _encode(chunk)
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + b"]}}"


def _encode(payload: Any) -> bytes:
    return _JSON_ENCODER.encode(payload).encode()


def _error(request: _Request, code: str, message: str, *, retryable: bool) -> bytes:
    request_id = f"req_{request.ordinal:012d}"
    return _encode({"code": code, "message": message, "retryable": retryable, "requestId": request_id})


async def _start(send: Send, status: int, headers: Headers, length: int) -> None:
    headers = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await _start(send, status, headers, len(body))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _drip(send: Send, body: bytes, seconds: float) -> None:
    await _start(send, 200, _JSON, len(body))
    step = max(1, len(body) // 10)
    for at in range(0, len(body), step):
        await asyncio.sleep(seconds / 10)
        await send({"type": "http.response.body", "body": body[at : at + step], "more_body": at + step < len(body)})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _disconnect(request: _Request, *, hard: bool) -> None:
    """Close the connection under the answer: `hard` by a TCP reset, else as a server does that went away."""
    if request.transport is None:
        raise RuntimeError("this fault needs the sandbox's own server (pipeline.sandbox.server.serve)")
    if hard:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    else:
        request.transport.close()
    await _until_disconnect(request.receive)
