"""Buckets of Azure and Google on loopback, behind the proxy of `bucket`.

Azure's is Azurite, Microsoft's own emulator, run by Node; Google's is our stand-in, `gcs`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from tests.bucket import Bucket, serving_proxy
from tests.gcs import Gcs
from tests.programs import needed_program

ACCOUNT = "acmedata"
ACCOUNT_KEY = base64.b64encode(b"canary-Nc8sYh3GdJ6pUe5AkF7xQ2mVb9LwT4zRq").decode()
_PREFIX = "team/lake"
_VERSION = "2021-08-06"  # of the protocol, of the one request that is made here


def needs_azurite() -> str:
    """Return where Azurite is, which a lake in `az://` is tested against."""
    return needed_program("azurite-blob", to_install="npm install -g azurite")


@contextmanager
def serving_azurite(folder: Path) -> Iterator[str]:
    """Serve Azurite on a free port, with what it stores in memory; give host and port."""
    server = subprocess.Popen(
        [needs_azurite(), "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--silent"],
        cwd=folder,
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        lines: list[str] = []
        for line in server.stdout:
            lines.append(line)
            if listening := re.search(r"listens on http://(\S+)", line):
                break
        else:
            raise AssertionError("".join(lines))
        yield listening[1]
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@dataclass(slots=True)
class AzureBucket(Bucket):
    """A container, in the account of an emulator."""

    def credentials(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": f"{self.proxy.endpoint}/{ACCOUNT}",
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        return (ACCOUNT_KEY,)

    def store(self) -> object:
        import obstore.store

        return obstore.store.AzureStore(
            self.url.split("/")[2], prefix=_PREFIX, account_name=ACCOUNT, account_key=ACCOUNT_KEY,
            endpoint=f"http://{self.proxy.upstream}/{ACCOUNT}", client_options={"allow_http": True},
        )  # fmt: skip


@dataclass(slots=True)
class GoogleBucket(Bucket):
    """A bucket of the stand-in for Google's store."""

    gcs: Gcs
    key_file: Path

    def credentials(self) -> dict[str, str]:
        return {"GOOGLE_BASE_URL": self.proxy.endpoint, "GOOGLE_APPLICATION_CREDENTIALS": str(self.key_file)}

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(self.gcs.private_key().splitlines()[1:3])

    def store(self) -> object:
        import obstore.store

        return obstore.store.GCSStore(
            self.url.split("/")[2], prefix=_PREFIX, base_url=f"http://{self.proxy.upstream}",
            application_credentials=str(self.key_file), client_options={"allow_http": True},
        )  # fmt: skip


@contextmanager
def making_container(upstream: str, folder: Path) -> Iterator[Bucket]:
    """Make a container with a name of its own."""
    name = f"lake-{secrets.token_hex(6)}"
    date = formatdate(usegmt=True)
    # https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key: eleven headers are not sent.
    text = (
        "PUT\n" + "\n" * 11 + f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
        f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    )
    signature = base64.b64encode(hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest())
    way = http.client.HTTPConnection(upstream, timeout=30)
    way.request(
        "PUT", f"/{ACCOUNT}/{name}?restype=container",
        headers={
            "x-ms-date": date, "x-ms-version": _VERSION, "Content-Length": "0",
            "Authorization": f"SharedKey {ACCOUNT}:{signature.decode()}",
        },
    )  # fmt: skip
    answer = way.getresponse()
    assert answer.status == 201, answer.read()
    way.close()
    with serving_proxy(upstream, _PREFIX, parts=2) as proxy:
        yield AzureBucket(f"az://{name}/{_PREFIX}", proxy, folder)


@contextmanager
def making_google_bucket(gcs: Gcs, key_file: Path, folder: Path) -> Iterator[Bucket]:
    """Make a bucket with a name of its own."""
    name = f"lake-{secrets.token_hex(6)}"
    gcs.buckets[name] = {}
    with serving_proxy(gcs.upstream, _PREFIX) as proxy:
        yield GoogleBucket(f"gs://{name}/{_PREFIX}", proxy, folder, gcs, key_file)
