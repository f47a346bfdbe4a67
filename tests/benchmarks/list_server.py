"""A loopback server of lists, as fast as the one of runs by ID: what a sync asks for, with summaries made beforehand.

    python -m tests.benchmarks.list_server NUMBER [alone]          prints its port

It has NUMBER classify runs, in pages of a hundred, the latest change first; a minute and a half lies between two of
them. All other kinds have none. A summary is the fast server's run of that number without what only a detail carries;
with `alone` it tells a total beyond its own credits, and not for what.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.kinds import BY_OBJECT
from tests.benchmarks.measuring import ROOT, SERVER_CORE, keep_on
from tests.fast_server import payload, run_id

PAGE = 100
_KIND = BY_OBJECT["classify_run"]
_EVERY = timedelta(seconds=90)
_NEWEST = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
_TURNS = 7 * 12
"""A summary depends on its number by the remainders of 7 and 12, and by the number itself."""


def summary(number: int) -> dict[str, Any]:
    """Return a run's summary: the greater its number, the older it is."""
    run = {name: value for name, value in payload(number).items() if name not in _KIND.detail_only}
    created_at = _NEWEST - number * _EVERY
    run |= {"createdAt": created_at.isoformat(), "updatedAt": (created_at + timedelta(seconds=20)).isoformat()}
    return run


class _Lists:
    """Makes pages out of templates: one summary for each remainder of all that it depends on but for the number.

    The page after one that was asked for is made while the client reads that one, so that nobody waits for it.
    """

    def __init__(self, number: int, *, alone: bool) -> None:
        self._number = number
        self._ahead: tuple[int, bytes] | None = None
        self._templates = [self._template(each, alone=alone) for each in range(_TURNS)]

    def page(self, target: str) -> bytes:
        """Return the page that a request's target names."""
        path, _, query = target.partition("?")
        if path != _KIND.path:
            return b'{"object": "list", "data": []}'
        start = int(query.rpartition("nextPageToken=p")[2]) if "nextPageToken=" in query else 0
        made, self._ahead = self._ahead, None
        body = made[1] if made is not None and made[0] == start else self._page(start)
        asyncio.get_running_loop().call_soon(self._make_ahead, start + PAGE)
        return body

    def _make_ahead(self, start: int) -> None:
        if start < self._number:
            self._ahead = start, self._page(start)

    def _page(self, start: int) -> bytes:
        end = min(start + PAGE, self._number)
        token = b', "nextPageToken": "p%d"' % end if end < self._number else b""
        return b'{"object": "list", "data": [%s]%s}' % (b",".join(map(self._summary, range(start, end))), token)

    def _summary(self, number: int) -> bytes:
        created_at = _NEWEST - number * _EVERY
        created, updated = (at.isoformat().encode() for at in (created_at, created_at + timedelta(seconds=20)))
        text = self._templates[number % _TURNS].replace(b"@ID@", b"%020d" % number).replace(b"@NUMBER@", b"%d" % number)
        return text.replace(b"@CREATED@", created).replace(b"@UPDATED@", updated)

    @staticmethod
    def _template(number: int, *, alone: bool) -> bytes:
        run = summary(number)
        if alone:
            run["usage"] = {"credits": 1, "totalCredits": 3}
        run |= {"id": "clr_@ID@", "createdAt": "@CREATED@", "updatedAt": "@UPDATED@",
                "dashboardUrl": "https://dashboard.example/runs/clr_@ID@"}  # fmt: skip
        run["file"] |= {"id": "file_@NUMBER@", "name": "invoice-@NUMBER@.pdf"}
        run["failureMessage"] = run["failureMessage"] and "The file could not be parsed."
        return json.dumps(run).encode()


class _Answering(asyncio.Protocol):
    def __init__(self, lists: _Lists) -> None:
        self._lists = lists
        self._ahead = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._ahead = (self._ahead + data).split(b"\r\n\r\n")
        for request in requests:
            body = self._lists.page(request.split(b" ", 2)[1].decode())
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


async def _serve(number: int, *, alone: bool) -> None:
    lists = _Lists(number, alone=alone)
    server = await asyncio.get_running_loop().create_server(lambda: _Answering(lists), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving_lists(number: int, *, alone: bool = False) -> Iterator[str]:
    """Serve in a process of its own meanwhile, on the server's core; yield its address."""
    command = [sys.executable, "-m", "tests.benchmarks.list_server", str(number), *(["alone"] if alone else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        keep_on(SERVER_CORE, process.pid)
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


__all__ = ["PAGE", "run_id", "serving_lists", "summary"]

if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), alone="alone" in sys.argv[2:]))
