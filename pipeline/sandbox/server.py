"""The sandbox as a real HTTP server on 127.0.0.1: in a thread for tests, in the foreground for the command line.

The key (by default `sandbox`) is a key of the first workspace, which most runs are in, and needs no workspace header;
the same with `-org` behind it is the organization's own, reaches every workspace, and needs the header.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.errors import UsageError

from .app import SandboxApp
from .faults import Faults
from .life import living
from .limits import Hint
from .listing import ParseOrder
from .world import World

HOST = "127.0.0.1"
MOST_EVENTS_A_SECOND = 1000


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection handed to the application, which must be able to break it."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {"sandbox.connection": {"transport": self.transport}}


class SandboxServer:
    """A running sandbox: where it is, its keys, and what it was asked so far.

    `asked` counts by-ID requests by run ID, whatever came of them; `answered` complete and correct answers to them;
    `asked_lists` list requests by path; `requests` every request; `rate_limited` the 429s. `faults`, `removed_lists`
    and `on_request` may be assigned while it runs.
    """

    def __init__(self, app: SandboxApp, port: int) -> None:
        self.app = app
        self.base_url = f"http://{HOST}:{port}"
        self.key = app.key
        self.org_key = app.org_key

    @property
    def world(self) -> World:
        """The world being served, which may be changed meanwhile."""
        return self.app.world

    @property
    def asked(self) -> Counter[str]:
        """By-ID requests received, by run ID: every attempt, faulty or not."""
        return self.app.asked

    @property
    def answered(self) -> Counter[str]:
        """Complete and correct 200 answers sent, by run ID."""
        return self.app.answered

    @property
    def asked_lists(self) -> Counter[str]:
        """List requests received, by path (`/classify_runs`): every attempt, faulty or not."""
        return self.app.asked_lists

    @property
    def requests(self) -> int:
        """Requests received, of any kind."""
        return self.app.requests

    @property
    def rate_limited(self) -> int:
        """Answers with status 429, by the rate limit or as a fault."""
        return self.app.rate_limited

    @property
    def faults(self) -> Faults | None:
        """What goes wrong from the next request on; None for nothing."""
        return self.app.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self.app.faults = faults

    @property
    def removed_lists(self) -> Collection[str]:
        """Kinds (`edit_run`) whose list answers ENDPOINT_REMOVED from the next request on."""
        return self.app.removed_lists

    @removed_lists.setter
    def removed_lists(self, kinds: Collection[str]) -> None:
        self.app.removed_lists = frozenset(kinds)

    @property
    def on_request(self) -> Callable[[str], None] | None:
        """What is called with each request's path before its answer is made; None for nothing."""
        return self.app.on_request

    @on_request.setter
    def on_request(self, hook: Callable[[str], None] | None) -> None:
        self.app.on_request = hook


@contextmanager
def serve(
    world: World,
    *,
    key: str = "sandbox",
    port: int = 0,
    limit_qps: float = 0,
    faults: Faults | None = None,
    retry_after: Hint = "seconds",
    largest_page: int = 100,
    compress: bool = False,
    removed_lists: Collection[str] = (),
    short_pages: bool = True,
    parse_order: ParseOrder = "scattered",
    token_life: int | None = None,
    on_request: Callable[[str], None] | None = None,
) -> Iterator[SandboxServer]:
    """Serve the world from a thread of its own until the block ends; port 0 takes a free one.

    `limit_qps` is requests a second over all endpoints (0: no limit), and `retry_after` how a 429 of that limit says
    when to come back; `largest_page` bounds every page, `compress` turns gzip on for who accepts it, and
    `removed_lists` names kinds (`edit_run`) whose list answers ENDPOINT_REMOVED. With `short_pages` some pages before
    the last hold fewer runs than asked for; `parse_order` is the order of parse runs; a page token is refused once
    `token_life` pages were served after its own (None: never); `on_request` is called in the server's thread with each
    request's path before the answer is made. Raises UsageError where the port is in use.
    """
    app = SandboxApp(
        world, key=key, limit_qps=limit_qps, retry_after=retry_after, faults=faults, largest_page=largest_page,
        compress=compress, removed_lists=removed_lists, short_pages=short_pages, parse_order=parse_order,
        token_life=token_life, on_request=on_request,
    )  # fmt: skip
    listener = _listen(port)
    config = uvicorn.Config(
        app, http=_Protocol, loop="asyncio", ws="none", lifespan="off", interface="asgi3", access_log=False,
        log_config=None, log_level="critical", server_header=False, timeout_graceful_shutdown=1, backlog=512,
    )  # fmt: skip
    server = uvicorn.Server(config)
    loop: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loop.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="sandbox", daemon=True)
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield SandboxServer(app, listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        if loop and thread.is_alive():
            loop[0].call_soon_threadsafe(_drop_connections, server)
        thread.join(timeout=10)
        listener.close()


def _listen(port: int) -> socket.socket:
    # Named, or asyncio would leave Nagle on: each answer would wait 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":  # there it would let two servers share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} is in use; give another with --port, or 0 for a free one"
        else:
            message = f"port {port} cannot be used ({error.strerror}); give another with --port, or 0 for a free one"
        raise UsageError(message) from error
    return listener


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    pause = threading.Event()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the sandbox's server did not start")
        pause.wait(0.005)


def _drop_connections(server: uvicorn.Server) -> None:
    """Break every connection, so that nothing that hangs can hold up the end."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def serve_forever(
    *, port: int, seed: int, runs: int, key: str, limit_qps: float, fault_share: float, events_a_second: float = 0
) -> None:
    """Serve a world until interrupted (SIGINT or SIGTERM), having printed what to export to use it.

    `fault_share` is from 0 to 1 of all requests; so many `events_a_second` change the world meanwhile, 0 none. Raises
    UsageError where the port is in use or an argument is wrong.
    """
    if runs < 1 or not 0 <= fault_share <= 1:
        raise UsageError("the number of runs must be 1 or more, and the share of faults from 0 to 1")
    if not 0 <= events_a_second <= MOST_EVENTS_A_SECOND:
        raise UsageError(f"the events a second must be from 0 to {MOST_EVENTS_A_SECOND}")
    faults = Faults(share=fault_share, seed=seed) if fault_share else None
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    world = World(seed=seed, runs=runs)
    life = living(world, seed=seed, events_a_second=events_a_second) if events_a_second else nullcontext()
    lives = f" Meanwhile {events_a_second:g} events a second change them." if events_a_second else ""
    try:
        with serve(world, key=key, port=port, limit_qps=limit_qps, faults=faults) as server, life:
            print(f"export EXTEND_BASE_URL={server.base_url}\nexport EXTEND_API_KEY={key}", flush=True)
            print(f"Serving {runs} made-up runs (seed {seed}); Ctrl-C stops.{lives}", file=sys.stderr, flush=True)
            while not stop.wait(0.5):
                pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
