"""The objects of a bucket, through `obstore`: listed, read, and replaced only as long as they are what they were.

Every request is bounded in time and in how often it is tried. What goes wrong is said in words of our own: the text of
a store's answer may hold the access key, and is shown nowhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.bucket.address import Address
from pipeline.config import is_loopback
from pipeline.errors import LakeConflictError, LakeError, StoreError, UsageError

T = TypeVar("T")

_TIMEOUT_S = 120
_CONNECT_S = 5
_RETRIES = 8
_RETRYING_S = 120
_CHUNK_BYTES = 8 << 20
_PAGE = 1_000
_ONE_PUT_BYTES = 256 << 20
"""Up to this size an object is sent in one request, which alone can have a condition."""

_UNSUPPORTED = ("NotSupportedError", "NotImplementedError")
"""Names of obstore's errors, and not ours: what a store has no operation for, or no condition."""

_HTTP_STATUS = re.compile(r"\b(?:status(?: code)?:?|code) ?\(?(\d{3})\b", re.IGNORECASE)
_UNREACHABLE = re.compile(r"connection refused|dns error|error trying to connect|network is unreachable", re.IGNORECASE)
_S3_CODE = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")

Tag = tuple[str, str | None]
"""What tells one version of an object from another: its ETag, and its version or generation where the store has one."""


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
        self._store = self._calling("opening", lambda: _open(address, env))

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def list_but(self, folder: str) -> list[Entry]:
        """Return all objects but those below a folder, which are passed over without being listed page by page."""

        def listing() -> list[Entry]:
            found: list[Entry] = []
            for page in self._obstore.list(self._store, chunk_size=_PAGE):
                found += [_entry(meta) for meta in page]
                if found[-1].name.startswith(f"{folder}/"):
                    # "0" follows "/": the first name that can come after the folder.
                    found += map(_entry, self._obstore.list(self._store, offset=f"{folder}0").collect())
                    break
            return [each for each in found if not each.name.startswith(f"{folder}/")]

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

    def put(self, name: str, content: bytes | memoryview, *, over: Tag | None) -> Tag:
        """Write an object over the version given, or with None where there is none; return its new version.

        Raises LakeConflictError where it is not, or no longer, that version. A request whose answer was lost has
        perhaps been carried out: where the object holds these very bytes, it has been written.
        """
        if over is None:
            mode: Any = "create"
        else:
            mode = {"e_tag": over[0]} | ({} if over[1] is None else {"version": over[1]})
        data = bytes(content)
        try:
            return self._calling(f"writing {name}", lambda: self._put(name, data, mode=mode))
        except (LakeConflictError, StoreError):
            found = self.read(name)
            if found is not None and found[0] == data:
                return found[1].tag
            raise

    def put_always(self, name: str, content: bytes | Path) -> Tag:
        """Write an object, whatever is there; return its new version."""
        if isinstance(content, Path) and content.stat().st_size <= _ONE_PUT_BYTES:
            content = content.read_bytes()
        return self._calling(f"writing {name}", lambda: self._put(name, content, mode="overwrite"))

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, those that are there."""
        each = list(names)
        if each:
            self._calling(f"deleting {each[0]}", lambda: self._or_none(lambda: self._obstore.delete(self._store, each)))

    def _put(self, name: str, content: bytes | Path, *, mode: Any) -> Tag:
        in_parts = isinstance(content, Path)
        result = self._obstore.put(self._store, name, content, mode=mode, use_multipart=in_parts)
        return (str(result["e_tag"]), result["version"])

    def _or_none(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except (FileNotFoundError, self._obstore.exceptions.NotFoundError):
            return None

    def _calling(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (StoreError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever obstore raises may hold the access key in its text
            kind, text = type(error).__name__, str(error)
        # Out of the handler, so that no traceback has the store's text.
        raise self._error(doing, kind, text)

    def _error(self, doing: str, kind: str, text: str) -> LakeError:
        if kind in ("PreconditionError", "AlreadyExistsError") or _status(text) in ("409", "412"):
            return LakeConflictError(
                f"{self.url}: {doing}: another writer has replaced it meanwhile; type the same command again"
            )
        told = {
            "PermissionDeniedError": "the store refuses (no permission, or wrong credentials)",
            "UnauthenticatedError": "the store refuses the credentials",
            "NotFoundError": "there is no such bucket",
            **dict.fromkeys(_UNSUPPORTED, "the store cannot do this"),
        }.get(kind, "the store does not answer, or not as it should")
        hints = [f"HTTP {status}"] if (status := _status(text)) else []
        hints += [found[1]] if (found := _S3_CODE.search(text)) else []
        hints += ["it took too long"] if "timed out" in text else []
        hints += ["it cannot be reached"] if _UNREACHABLE.search(text) else []
        hints += ["no credentials were found"] if "169.254.169.254" in text or "metadata" in text.lower() else []
        why = f" ({', '.join(hints)})" if hints else ""
        return StoreError(
            f"{self.url}: {doing}: {told}{why}; check the bucket, the network and the credentials, and try again",
            is_unsupported=kind in _UNSUPPORTED or _status(text) == "501",
        )


def _status(text: str) -> str | None:
    found = _HTTP_STATUS.search(text)
    return found[1] if found else None


def _entry(meta: Mapping[str, Any]) -> Entry:
    return Entry(meta["path"], meta["size"], (str(meta["e_tag"]), meta["version"]), meta["last_modified"])


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


def _open(address: Address, env: Mapping[str, str]) -> Any:
    import obstore.store

    options: dict[str, Any] = {
        "prefix": address.prefix or None,
        "client_options": {"timeout": f"{_TIMEOUT_S}s", "connect_timeout": f"{_CONNECT_S}s"},
        "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRYING_S)},
    }
    if address.endpoint is not None and address.scheme == "s3":
        options["client_options"] |= _encryption(address.endpoint, env)
        options["endpoint"] = address.endpoint
    if address.scheme == "s3":
        if not (env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")):
            options["region"] = "us-east-1"
        if provider := _profile(env):
            options["credential_provider"] = provider
        return obstore.store.S3Store(address.bucket, **options)
    if address.scheme == "gs":
        return obstore.store.GCSStore(address.bucket, **options)
    return obstore.store.AzureStore(address.bucket, **options)


def _encryption(endpoint: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return whether http:// may be spoken: to this machine; beyond it, only where AWS_ALLOW_HTTP says so."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        return {}
    if not is_loopback(parts.hostname or "") and env.get("AWS_ALLOW_HTTP", "").lower() not in ("1", "true"):
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
