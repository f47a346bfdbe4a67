"""A stand-in for Google Cloud Storage on loopback, of our own: the calls of its XML API that a lake makes, and no more.

No emulator that can be installed here speaks them: fake-gcs-server and gcp-storage-emulator have the JSON API. What it
answers follows Google's reference: conditions of writes are by generation (`x-goog-if-generation-match`, 0 for an
object that is not there), `If-Match` is for reads alone and does nothing to a write; a list tells ETags, of which
the library that reads it takes no generations; deleting what is not there is a 404; names are signed for, by a JWT of
the service account.

https://cloud.google.com/storage/docs/request-preconditions, …/xml-api/reference-headers, …/xml-api/get-bucket-list,
…/quotas (one write a second to an object)
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

HOST = "127.0.0.1"
EMAIL = "lake@canary-project.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    generation: int
    modified: datetime

    @property
    def e_tag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@dataclass(slots=True)
class Gcs:
    """The objects of all buckets, and the account that may see them."""

    port: int = 0
    buckets: dict[str, dict[str, _Object]] = field(default_factory=dict)
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    lock: threading.Lock = field(default_factory=threading.Lock)
    generations: int = 1_700_000_000_000_000
    between_writes_s: float = 0.0
    """So long after an object was written another write of it is refused, as Google does within a second or so."""
    refused: int = 0

    @property
    def upstream(self) -> str:
        return f"{HOST}:{self.port}"

    def private_key(self) -> str:
        """Return the account's key, as the file that Google gives out has it."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def credentials(self) -> str:
        """Return the file that GOOGLE_APPLICATION_CREDENTIALS names."""
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "canary-project",
                "private_key_id": "1",
                "private_key": self.private_key(),
                "client_email": EMAIL,
                "client_id": "1",
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )

    def is_signed(self, authorization: str) -> bool:
        """Tell whether a request is that of the account: by the signature of its JWT, and whose it says it is."""
        signed, _, signature = authorization.removeprefix("Bearer ").rpartition(".")
        try:
            self.key.public_key().verify(_unpack(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            return bool(json.loads(_unpack(signed.partition(".")[2]))["iss"] == EMAIL)
        except (InvalidSignature, ValueError, KeyError):
            return False


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gcs: Gcs

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        bucket, _, name = unquote(parts.path).lstrip("/").partition("/")
        with self.gcs.lock:
            objects = self.gcs.buckets.get(bucket)
            if not self.gcs.is_signed(self.headers.get("Authorization", "")):
                self._refuse(401, "AuthenticationRequired")
            elif objects is None:
                self._refuse(404, "NoSuchBucket")
            elif not name and self.command == "GET":
                self._list(objects, {key: values[0] for key, values in parse_qs(parts.query).items()})
            elif parts.query:
                self._refuse(501, "NotImplemented")
            elif self.command == "PUT":
                self._put(objects, name, body)
            elif self.command in ("GET", "HEAD") and (found := objects.get(name)):
                self._send(200, found.content, found)
            elif self.command == "DELETE" and objects.pop(name, None):
                self._send(204, b"")
            else:
                self._refuse(404, "NoSuchKey")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

    def _put(self, objects: dict[str, _Object], name: str, body: bytes) -> None:
        there = objects.get(name)
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            self._refuse(412, "PreconditionFailed")
            return
        if there is not None and (datetime.now(UTC) - there.modified).total_seconds() < self.gcs.between_writes_s:
            self.gcs.refused += 1
            self._refuse(429, "SlowDown")
            return
        self.gcs.generations += 1
        objects[name] = _Object(body, self.gcs.generations, datetime.now(UTC))
        self._send(200, b"", objects[name])

    def _list(self, objects: dict[str, _Object], asked: dict[str, str]) -> None:
        after = max(asked.get("start-after", ""), asked.get("continuation-token", ""))
        names = sorted(name for name in objects if name.startswith(asked.get("prefix", "")) and name > after)
        page = names[: int(asked.get("max-keys", 1000))]
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(names) else ""
        listed = "".join(
            f"<Contents><Key>{escape(name)}</Key><Generation>{found.generation}</Generation>"
            f"<LastModified>{found.modified:%Y-%m-%dT%H:%M:%S.%f}Z</LastModified><ETag>{found.e_tag}</ETag>"
            f"<Size>{len(found.content)}</Size></Contents>"
            for name in page
            for found in [objects[name]]
        )
        self._send(200, f"<ListBucketResult>{listed}{more}</ListBucketResult>".encode())

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _send(self, status: int, content: bytes, found: _Object | None = None) -> None:
        self.send_response_only(status)
        if found is not None:
            self.send_header("ETag", found.e_tag)
            self.send_header("x-goog-generation", str(found.generation))
            self.send_header("Last-Modified", format_datetime(found.modified, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed."""
        with suppress(ConnectionError):
            raise


@contextmanager
def serving_gcs() -> Iterator[Gcs]:
    """Serve it on a free port."""
    gcs = Gcs()
    server = _Server((HOST, 0), type("Handler", (_Handler,), {"gcs": gcs}))
    gcs.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield gcs
    finally:
        server.shutdown()
        server.server_close()
