"""A loopback server that answers by-ID requests as fast as Python can: tens of thousands a second.

The sandbox, which behaves as the API does, gives a few thousand. This is for soaks and benchmarks, in which the client
is to be what takes time.

    python -m tests.fast_server QPS DAYS   prints its port, then for each line it reads its counts: answers, 429s

With QPS it lets through so many requests a second with one key, as the sandbox does, and answers the others with 429:
each key is another organization, with a limit of its own. A run's number is the digits of its ID. It decides the day
of creation, and every seventh run failed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.sandbox.limits import TokenBucket, retry_headers

DAYS = 365
_FIRST_DAY = datetime(2025, 11, 1, 9, 30, tzinfo=UTC)
_FILLER = 1_700
_KEY = re.compile(rb"\r\nauthorization: bearer ([^\r]*)", re.IGNORECASE)


def run_id(number: int) -> str:
    """Return the ID of a run by its number."""
    return f"clr_{number:020d}"


def payload(number: int, days: int = DAYS) -> dict[str, Any]:
    """Return the detail of a run by its number: 3 KB, 1.3 credits, or failed; created on one of so many days."""
    created_at = _FIRST_DAY + timedelta(days=number % days)
    is_failed = number % 7 == 0
    return {
        "object": "classify_run",
        "id": run_id(number),
        "status": "FAILED" if is_failed else "PROCESSED",
        "failureReason": "PARSING_ERROR" if is_failed else None,
        "failureMessage": f"The file could not be parsed: page {number % 12}" if is_failed else None,
        "createdAt": created_at.isoformat(),
        "updatedAt": (created_at + timedelta(seconds=20)).isoformat(),
        "classifier": {"object": "classifier", "id": f"cl_{number % 12}", "name": f"Classifier {number % 12}"},
        "classifierVersion": {"object": "classifier_version", "id": f"clv_{number % 12}", "version": "1.0"},
        "config": {"baseProcessor": "classification_performance", "baseVersion": "3.2.0", "classifications": []},
        "file": {"object": "file", "id": f"file_{number}", "name": f"invoice-{number}.pdf", "type": "PDF",
                 "metadata": {"pageCount": 3}, "createdAt": created_at.isoformat()},
        "reviewed": False, "edited": False, "metadata": {"customer": f"c{number % 12}"},
        "output": {"id": "invoice", "type": "invoice", "confidence": 0.97,
                   "insights": [{"type": "reasoning", "content": "x" * _FILLER}]},
        "usage": None if is_failed else {"credits": 1.3},
        "dashboardUrl": f"https://dashboard.example/runs/{run_id(number)}",
    }  # fmt: skip


@dataclass
class Counts:
    """How many requests were answered, and how many refused with 429."""

    answered: int = 0
    refused: int = 0


class _Answering(asyncio.Protocol):
    def __init__(self, counts: Counts, templates: list[bytes], buckets: dict[bytes, TokenBucket]) -> None:
        self._counts, self._templates, self._buckets = counts, templates, buckets
        self._ahead = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._ahead = (self._ahead + data).split(b"\r\n\r\n")
        for request in requests:
            if (wait_s := self._buckets[_key_of(request)].wait_s()) > 0:
                self._refuse(wait_s)
                continue
            number = int(request[: request.index(b" HTTP/1.1")].rsplit(b"_", 1)[1])
            body = self._body(number)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            self._counts.answered += 1

    def _refuse(self, wait_s: float) -> None:
        headers = b"".join(b"%s: %s\r\n" % header for header in retry_headers("seconds", wait_s))
        self._transport.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n" + headers + b"\r\n")
        self._counts.refused += 1

    def _body(self, number: int) -> bytes:
        """Return the payload by a template: numbers with one remainder differ in the digits of the number alone."""
        template = self._templates[number % len(self._templates)]
        return template.replace(b"00000000000000000000", b"%020d" % number).replace(b"@NUMBER@", b"%d" % number)


def _key_of(request: bytes) -> bytes:
    """Return the key of a request; nothing where it has none. The name of a header may come in small letters."""
    found = _KEY.search(request)
    return found[1] if found else b""


def _templates(days: int) -> list[bytes]:
    """Return a template for each remainder of all that a payload depends on but for the number itself."""
    templates = []
    for number in range(days * 7 * 12):
        run = payload(number, days)
        run["id"], run["dashboardUrl"] = run_id(0), f"https://dashboard.example/runs/{run_id(0)}"
        run["file"] |= {"id": "file_@NUMBER@", "name": "invoice-@NUMBER@.pdf"}
        templates.append(json.dumps(run).encode())
    return templates


async def _serve(limit_qps: float, days: int) -> None:
    loop = asyncio.get_running_loop()
    counts, templates = Counts(), _templates(days)
    buckets: dict[bytes, TokenBucket] = defaultdict(lambda: TokenBucket(limit_qps))
    server = await loop.create_server(lambda: _Answering(counts, templates, buckets), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(counts.answered, counts.refused, flush=True)


class FastServer:
    """The server, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], days: int) -> None:
        self._process, self._days = process, days
        assert process.stdout is not None
        self.base_url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        self.pid = process.pid

    def payload(self, number: int) -> dict[str, Any]:
        """Return the run of a number as this server gives it."""
        return payload(number, self._days)

    def counts(self) -> Counts:
        """Return what it has counted so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counts(*map(int, self._process.stdout.readline().split()))

    def answered(self) -> int:
        """Return how many requests it has answered."""
        return self.counts().answered


@contextmanager
def serving_fast(limit_qps: float = 0, days: int = DAYS) -> Iterator[FastServer]:
    """Serve runs of so many days in a process of its own meanwhile; of so many requests a second, or all (0)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fast_server", str(limit_qps), str(days)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    with process:
        try:
            yield FastServer(process, days)
        finally:
            process.terminate()


if __name__ == "__main__":
    multiprocessing.current_process().name = "fast-server"
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
