"""The objects of a bucket, through `obstore`: listed, read, and replaced only as long as they are what they were.

Every request is bounded in time and in how often it is tried. What goes wrong is said in words of our own: the text of
a store's answer may hold the access key, and is shown nowhere.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.bucket.address import Address
from pipeline.bucket.azure import azure_settings
from pipeline.config import is_loopback
from pipeline.errors import LakeConflictError, LakeError, StoreError, UsageError

T = TypeVar("T")

_TIMEOUT_S = 120
_CONNECT_S = 5
_RETRIES = 8
_RETRYING_S = 120
_CHUNK_BYTES = 8 << 20
_PAGE = 1_000
ONE_PUT_BYTES = 4_900 << 20
"""Up to this size an object is sent in one request, which alone can have a condition: S3 takes 5 GiB, Azure 5,000 MiB,
Google more.
"""
_LARGE_BYTES = 64 << 20
_SLOWEST_BYTES_S = 1 << 20
"""A larger object has more time, as this rate needs."""

_NO_BUCKET = "there is no such bucket"
_NO_SUCH_OPERATION = ("NotSupportedError", "NotImplementedError")
"""Names of obstore's errors, and not ours: what a store has no operation for, or no condition."""

_HTTP_STATUS = re.compile(r"\b(?:status(?: code)?:?|code) ?\(?(\d{3})\b", re.IGNORECASE)
_UNREACHABLE = re.compile(r"connection refused|dns error|error trying to connect|network is unreachable", re.IGNORECASE)
_S3_CODE = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")

Tag = str
"""What tells one version of an object from another: its ETag, without the quotation marks, which Azure's lists lack.

Versions and generations are no part of it: no list tells them.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object: its name below the lake's prefix, its size, its version, and when it was written, by the store's
    clock.
    """

    name: str
    size: int
    tag: Tag
    modified: datetime


class Store:
    """The objects below a lake's prefix. Raises StoreError where the store does not answer, or refuses."""

    def __init__(self, address: Address, env: Mapping[str, str] = os.environ) -> None:
        self.url = address.url
        self._obstore = _import_obstore()
        self._open = partial(_open, address, env)
        self._store = self._calling("opening", self._open)
        self._has_etag_conditions = address.scheme != "gs"

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def list_but(self, folder: str) -> list[Entry]:
        """Return all objects but those below a folder, which are passed over without being listed page by page."""

        def listing() -> list[Entry]:
            found: dict[str, Entry] = {}
            for page in self._obstore.list(self._store, chunk_size=_PAGE):
                found |= _entries(page)
                if page and page[-1]["path"].startswith(f"{folder}/"):
                    # "0" follows "/": the first name that can come after the folder. A store that does not know such a
                    # list, as Azure's emulator, begins anew.
                    found |= _entries(self._obstore.list(self._store, offset=f"{folder}0").collect())
                    break
            return [each for each in found.values() if not each.name.startswith(f"{folder}/")]

        return self._calling("listing", listing)

    def list_below(self, folder: str) -> list[Entry]:
        """Return all objects below a folder, by name."""
        found = self._calling("listing", lambda: self._obstore.list(self._store, prefix=folder or None).collect())
        return sorted((_entry(meta) for meta in found), key=lambda each: each.name)

    def head(self, name: str) -> Entry | None:
        """Return what is known of an object; None where there is none."""
        meta = self._calling(f"asking for {name}", lambda: self._or_none(lambda: self._obstore.head(self._store, name)))
        return None if meta is None else _entry(meta)

    def read(self, name: str) -> tuple[bytes, Entry] | None:
        """Return an object's bytes, with the version that they are of; None where there is none."""

        def reading() -> tuple[bytes, Entry] | None:
            found = self._or_none(lambda: self._obstore.get(self._store, name))
            return None if found is None else (bytes(found.bytes()), _entry(found.meta))

        return self._calling(f"reading {name}", reading)

    def download(self, name: str, path: Path) -> Entry | None:
        """Write an object to a new file; return the version that it is of, or None where there is no such object.

        One request gives one version of it, whatever is written meanwhile.
        """

        def downloading() -> Entry | None:
            found = self._or_none(lambda: self._obstore.get(self._store, name))
            if found is None:
                return None
            size = 0
            with path.open("wb") as file:
                for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                    size += file.write(chunk)
            entry = _entry(found.meta)
            if size != entry.size:
                raise StoreError(f"{self.url}: reading {name}: {size:,} of {entry.size:,} bytes came; try again")
            return entry

        return self._calling(f"reading {name}", downloading)

    def put(self, name: str, content: bytes | Path, *, over: Tag | None) -> Tag:
        """Write an object over the version given, or with None where there is none; return its new version.

        Raises LakeConflictError where it is not, or no longer, that version. A request whose answer was lost has
        perhaps been carried out: where the object holds these very bytes, it has been written. A file may have up to
        ONE_PUT_BYTES.
        """
        with _bytes_of(content) as data:
            try:
                return self._calling(
                    f"writing {name}", lambda: self._put(name, data, len(data), mode=self._condition(name, over))
                )
            except (LakeConflictError, StoreError):
                there = self.head(name)
                if there is not None and there.size == len(data):
                    found = self.read(name)
                    if found is not None and found[0] == data[:]:
                        return found[1].tag
                raise

    def put_always(self, name: str, content: bytes | Path) -> Tag:
        """Write an object, whatever is there; return its new version. A file above ONE_PUT_BYTES goes in parts."""
        doing = f"writing {name}"
        if isinstance(content, Path) and (size := content.stat().st_size) > ONE_PUT_BYTES:
            return self._calling(doing, lambda: self._put(name, content, size, mode="overwrite"))
        with _bytes_of(content) as data:
            return self._calling(doing, lambda: self._put(name, data, len(data), mode="overwrite"))

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, those that are there."""
        each = list(names)

        def deleting() -> None:
            try:
                self._obstore.delete(self._store, each)
            except (FileNotFoundError, self._obstore.exceptions.NotFoundError):
                # One is not there, and this store minds that: the others may not have been asked for.
                for name in each:
                    self._or_none(partial(self._obstore.delete, self._store, name))

        if each:
            self._calling(f"deleting {each[0]}", deleting)

    def _put(self, name: str, content: bytes | mmap.mmap | Path, size: int, *, mode: Any) -> Tag:
        store = self._store
        if size > _LARGE_BYTES:
            store = self._open(timeout_s=_TIMEOUT_S + size // _SLOWEST_BYTES_S)
        return _tag(self._obstore.put(store, name, content, mode=mode, use_multipart=size > ONE_PUT_BYTES))

    def _condition(self, name: str, over: Tag | None) -> Any:
        """Return the condition of a write in obstore's words.

        Google's are not by ETag but by generation: the one that the object with this ETag has is asked for first. Who
        replaces it after that changes the generation, and the write is refused.
        """
        if over is None:
            return "create"
        if self._has_etag_conditions:
            return {"e_tag": over if over.startswith("W/") else f'"{over}"'}
        there = self._or_none(lambda: self._obstore.head(self._store, name))
        if there is None or _tag(there) != over:
            raise LakeConflictError(self._replaced(f"writing {name}"))
        return {"e_tag": there["e_tag"], "version": there["version"]}

    def _or_none(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except (FileNotFoundError, self._obstore.exceptions.NotFoundError):
            return None

    def _calling(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (LakeError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever obstore raises may hold the access key in its text
            kind, text = type(error).__name__, str(error)
        # Out of the handler, so that no traceback has the store's text.
        raise self._error(doing, kind, text)

    def _error(self, doing: str, kind: str, text: str) -> LakeError:
        if kind in ("PreconditionError", "AlreadyExistsError") or _status(text) in ("409", "412"):
            return LakeConflictError(self._replaced(doing))
        told = {
            "PermissionDeniedError": "the store refuses (no permission, or wrong credentials)",
            "UnauthenticatedError": "the store refuses the credentials",
            "NotFoundError": _NO_BUCKET,
            **dict.fromkeys(_NO_SUCH_OPERATION, "the store cannot do this"),
        }.get(kind, _NO_BUCKET if _status(text) == "404" else "the store does not answer, or not as it should")
        hints = [f"HTTP {status}"] if (status := _status(text)) else []
        hints += [found[1]] if (found := _S3_CODE.search(text)) else []
        hints += ["it took too long"] if "timed out" in text else []
        hints += ["it cannot be reached"] if _UNREACHABLE.search(text) else []
        hints += ["no credentials were found"] if "169.254.169.254" in text or "metadata" in text.lower() else []
        why = f" ({', '.join(hints)})" if hints else ""
        return StoreError(
            f"{self.url}: {doing}: {told}{why}; check the bucket, the network and the credentials, and try again",
            is_unsupported=kind in _NO_SUCH_OPERATION or _status(text) == "501",
        )

    def _replaced(self, doing: str) -> str:
        return f"{self.url}: {doing}: another writer has replaced it meanwhile; type the same command again"


def _status(text: str) -> str | None:
    found = _HTTP_STATUS.search(text)
    return found[1] if found else None


def _entry(meta: Mapping[str, Any]) -> Entry:
    return Entry(meta["path"], meta["size"], _tag(meta), meta["last_modified"])


def _entries(page: Iterable[Mapping[str, Any]]) -> dict[str, Entry]:
    return {meta["path"]: _entry(meta) for meta in page}


def _tag(meta: Mapping[str, Any]) -> Tag:
    return str(meta["e_tag"]).removeprefix('"').removesuffix('"')


@contextlib.contextmanager
def _bytes_of(content: bytes | Path) -> Iterator[bytes | mmap.mmap]:
    """Give what is to be sent; a file's bytes as they are in the file, without a copy in memory."""
    if not isinstance(content, Path):
        yield content
    elif not content.stat().st_size:
        yield b""  # nothing cannot be mapped
    else:
        with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _import_obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise UsageError(
            "a lake in a bucket needs one more package: pip install 'extend-pipeline[s3]' (or [gs], [az])"
        ) from error
    return obstore


def _open(address: Address, env: Mapping[str, str], *, timeout_s: int = _TIMEOUT_S) -> Any:
    import obstore.store

    options: dict[str, Any] = {
        "prefix": address.prefix or None,
        "client_options": {"timeout": f"{timeout_s}s", "connect_timeout": f"{_CONNECT_S}s"},
        "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=max(_RETRYING_S, timeout_s))},
    }
    if address.endpoint is not None:
        options["client_options"] |= _encryption(address, address.endpoint, env)
        options["base_url" if address.scheme == "gs" else "endpoint"] = address.endpoint
    if address.scheme == "s3":
        if not (env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")):
            options["region"] = "us-east-1"
        if provider := _profile(env):
            options["credential_provider"] = provider
        return obstore.store.S3Store(address.bucket, **options)
    if address.scheme == "gs":
        return obstore.store.GCSStore(address.bucket, **options)
    settings = azure_settings(env)
    if "account_name" not in settings:
        raise UsageError(
            f"{address.url}: of which storage account? Set AZURE_STORAGE_ACCOUNT_NAME, or "
            "AZURE_STORAGE_CONNECTION_STRING"
        )
    return obstore.store.AzureStore(address.bucket, **(settings | options))


def _encryption(address: Address, endpoint: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return whether http:// may be spoken: to this machine; beyond it, only to S3, where AWS_ALLOW_HTTP says so."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return {"allow_http": True} if parts.scheme == "http" else {}
    if address.scheme != "s3":
        raise UsageError(
            f"{address.url}: plain http:// would send payloads unencrypted; name an endpoint with https://"
        )
    if env.get("AWS_ALLOW_HTTP", "").lower() not in ("1", "true"):
        raise UsageError(
            "AWS_ENDPOINT_URL: plain http:// would send payloads unencrypted; use https://, or set AWS_ALLOW_HTTP=true "
            "if you are sure of the network"
        )
    return {"allow_http": True}


def _profile(env: Mapping[str, str]) -> Any:
    """Return what asks boto3 for credentials, where AWS_PROFILE names a profile: obstore does not read these."""
    if not env.get("AWS_PROFILE") or env.get("AWS_ACCESS_KEY_ID"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise UsageError("AWS_PROFILE: to read profiles takes one more package: pip install boto3") from None
    return Boto3CredentialProvider()
