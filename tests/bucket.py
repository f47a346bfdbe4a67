"""A bucket on loopback: moto's server of the S3 protocol, and in front of it a proxy that counts, spoils and delays.

Those of Azure and Google are in `clouds`, behind the same proxy.
"""

from __future__ import annotations

import http.client
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urlsplit

from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
KEY_ID, SECRET_KEY = "AKIDcanary7Qm2Vb9LwT4", "canary/Nc8sYh3GdJ6pUe5A+kF7xQ2mVb9LwT4zRq"
_CONDITIONS = ("if-match", "if-none-match", "x-goog-if-generation-match")
_LISTS = ("list-type=", "comp=list")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its method, the object's name below the lake's prefix (of a list: the prefix asked for), and
    whether it has a condition.
    """

    method: str
    name: str
    is_conditional: bool


@dataclass(frozen=True, slots=True)
class Spoilt:
    """What the proxy answers: a status, before or after (`is_done`) the request was carried out; 0 breaks off."""

    status: int
    code: str = "InternalError"
    is_done: bool = False


Plan = Callable[[Asked], "Spoilt | None"]


@dataclass(slots=True)
class Proxy:
    """What passes the proxy, and what is made of it. `plan` may also do something before a request is passed on."""

    upstream: str
    prefix: str
    parts: int = 1
    """So many parts of a path stand before an object's name: the bucket; for Azure's emulator, the account too."""
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    plan: Plan = lambda _asked: None
    ignores_conditions: bool = False
    delay_s: float = 0.0

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def count(self, method: str, *starts: str) -> int:
        """Return how many requests there were for objects whose names begin so."""
        return sum(each.method == method and each.name.startswith(starts or "") for each in list(self.asked))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.proxy
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        asked = self._asked(headers)
        proxy.asked.append(asked)
        spoilt = proxy.plan(asked)
        time.sleep(proxy.delay_s)
        if proxy.ignores_conditions:
            headers = {name: value for name, value in headers.items() if name.lower() not in _CONDITIONS}
        if spoilt is not None and not spoilt.is_done:
            self._spoil(spoilt)
            return
        with closing(http.client.HTTPConnection(proxy.upstream, timeout=30)) as way:
            try:
                way.request(self.command, self.path, body=body, headers=headers)
                answer = way.getresponse()
                content = answer.read()
            except OSError:
                self._spoil(Spoilt(0))
                return
        if spoilt is not None:
            self._spoil(spoilt)
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _asked(self, headers: Mapping[str, str]) -> Asked:
        parts = urlsplit(self.path)
        name = "/".join(unquote(parts.path).lstrip("/").split("/")[self.proxy.parts :])
        if not name:
            listed = [unquote(each.partition("=")[2]) for each in parts.query.split("&") if each.startswith("prefix=")]
            name = listed[0] if listed else ""
        conditions = [name for name in headers if name.lower() in _CONDITIONS]
        is_list = self.command == "GET" and any(each in parts.query for each in _LISTS)
        method = "LIST" if is_list else self.command
        return Asked(method, name.removeprefix(f"{self.proxy.prefix}/"), bool(conditions))

    def _spoil(self, spoilt: Spoilt) -> None:
        if not spoilt.status:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)
            return
        # As S3 does: with what a message must not show.
        text = f"<Error><Code>{spoilt.code}</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>".encode()
        self.send_response_only(spoilt.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving_moto() -> Iterator[str]:
    """Serve moto on a free port; give host and port."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        server.stop()


@contextmanager
def serving_proxy(upstream: str, prefix: str, *, parts: int = 1) -> Iterator[Proxy]:
    """Serve a proxy in front of it."""
    proxy = Proxy(upstream, prefix, parts)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server((HOST, 0), handler)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


@dataclass(slots=True)
class Bucket:
    """A bucket of S3, empty at first; `proxy` stands in front of it."""

    url: str
    proxy: Proxy
    folder: Path

    def environment(self, machine: str = "a") -> dict[str, str]:
        """Return what a machine's environment says of the bucket, and where its mirrors are."""
        return {**self.credentials(), "PIPELINE_CACHE": str(self.folder / f"machine-{machine}")}

    def credentials(self) -> dict[str, str]:
        """Return what the environment of those who may use the bucket says of it."""
        return {
            "AWS_ENDPOINT_URL": self.proxy.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing may show."""
        return (KEY_ID, SECRET_KEY)

    @contextmanager
    def on(self, machine: str) -> Iterator[str]:
        """Be another machine for a while: with a cache of its own; give the lake's URL."""
        with mock.patch.dict(os.environ, self.environment(machine)):
            yield self.url

    def keep_versions(self) -> None:
        """Have the bucket keep what is replaced."""
        setting = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        _put(self.proxy.upstream, f"/{self.url.split('/')[2]}?versioning", setting)

    def names(self) -> list[str]:
        """Return the names of all objects that are not empty, below the lake's prefix."""
        import obstore

        return sorted(each["path"] for each in obstore.list(self.store()).collect() if each["size"])

    def store(self) -> object:
        """Return the lake's objects, as a program that knows nothing of the pipeline has them."""
        import obstore.store

        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return obstore.store.S3Store(
            bucket, prefix=prefix, endpoint=f"http://{self.proxy.upstream}", region="us-east-1",
            access_key_id="other", secret_access_key="other", client_options={"allow_http": True},
        )  # fmt: skip


def _put(upstream: str, path: str, body: str = "") -> None:
    way = http.client.HTTPConnection(upstream, timeout=30)
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"}
    way.request("PUT", path, body=body, headers=signed)
    answer = way.getresponse()
    assert answer.status == 200, answer.read()
    way.close()


@contextmanager
def making_bucket(upstream: str, folder: Path) -> Iterator[Bucket]:
    """Make a bucket with a name of its own."""
    name, prefix = f"lake-{secrets.token_hex(6)}", "team/lake"
    _put(upstream, f"/{name}")
    with serving_proxy(upstream, prefix) as proxy:
        yield Bucket(f"s3://{name}/{prefix}", proxy, folder)
