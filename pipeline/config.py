"""Where the API is, and with which key: read from arguments, the environment and files, and checked once."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import UsageError

REGIONS: Mapping[str, str] = MappingProxyType(
    {
        "us": "https://api.extend.ai",
        "us2": "https://api.us2.extend.app",
        "eu": "https://api.eu1.extend.ai",
    }
)

_MASK = "[secret]"
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
_WORKSPACE = re.compile(r"ws_[A-Za-z0-9_-]{1,128}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9_~.-]+)*")
_MAX_KEY_FILE_BYTES = 8192


class Secret:
    """A string that shows itself only to whoever calls `reveal()`.

    Its text, repr and formatted forms are a mask; it cannot be pickled; copies are the same object.
    """

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        quoted = json.dumps(value)[1:-1]
        self._forms = tuple(form.encode() for form in {value, quoted, quoted.replace("/", "\\/")})

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def redact(self, text: str) -> str:
        """Return the text with every appearance of the secret replaced by a mask."""
        return text.replace(self._value, _MASK) if self._value else text

    def redact_body(self, body: bytes, *, at_least: int = 1) -> bytes:
        """Return JSON with the secret masked wherever it stands in it; one shorter than `at_least` is let stand."""
        if len(self._value) < max(at_least, 1):
            return body
        for form in self._forms:
            body = body.replace(form, _MASK.encode())
        return body

    def __str__(self) -> str:
        return _MASK

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: hand over the way to read it instead")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__getstate__()


class _Environment(Mapping[str, str]):
    """Variables, keys among them, that do not show themselves where a traceback shows what is at hand."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return "<environment>"


@dataclass(frozen=True, slots=True)
class Connection:
    """Which API to ask, and as whom. `base_url` has no slash at its end; `workspace_id` is null if none was given."""

    base_url: str
    api_key: Secret
    workspace_id: str | None = None


def read_connection(
    *,
    base_url: str | None = None,
    region: str | None = None,
    workspace: str | None = None,
    key_file: str | Path | None = None,
    allow_http: bool = False,
    env: Mapping[str, str],
) -> Connection:
    """Return the checked connection that the arguments and the environment describe.

    An argument goes before the environment, a base URL before a region, a key file before a key in the
    environment. An empty variable counts as unset. Raises UsageError, which never shows the key.
    """
    env = _Environment(env)
    try:
        return Connection(
            base_url=_read_base_url(base_url, region, env, allow_http=allow_http),
            api_key=_read_key(key_file, env),
            workspace_id=_read_workspace(workspace, env),
        )
    except UsageError as error:
        raise error.with_traceback(None) from None  # the frames beneath hold what was read, and may hold a key


def read_target(
    *,
    base_url: str | None = None,
    region: str | None = None,
    workspace: str | None = None,
    allow_http: bool = False,
    env: Mapping[str, str],
) -> tuple[str, str | None]:
    """Return the base URL and the workspace as `read_connection` does, where the key is not at hand."""
    env = _Environment(env)
    return _read_base_url(base_url, region, env, allow_http=allow_http), _read_workspace(workspace, env)


def read_connections(
    *,
    base_url: str | None = None,
    region: str | None = None,
    workspaces: Sequence[str] = (),
    key_file: str | Path | None = None,
    allow_http: bool = False,
    env: Mapping[str, str],
) -> list[Connection]:
    """Return a connection for each workspace, each once, in the order given.

    EXTEND_API_KEYS holds the keys of several workspaces, as `ws_…=key` with blanks between; where no workspace is
    named, these are all. A workspace that it does not name is asked for with the one key, which is organization-wide.
    Raises UsageError, which never shows a key.
    """
    env = _Environment(env)
    try:
        return _read_each(base_url, region, workspaces, key_file, env, allow_http=allow_http)
    except UsageError as error:
        raise error.with_traceback(None) from None  # the frames beneath may hold a key


def _read_each(
    base_url: str | None, region: str | None, workspaces: Sequence[str], key_file: str | Path | None,
    env: Mapping[str, str], *, allow_http: bool,
) -> list[Connection]:  # fmt: skip
    keys = _read_keys(env)
    url = _read_base_url(base_url, region, env, allow_http=allow_http)
    named = list(dict.fromkeys(_checked_workspace(text, "--workspace") for text in workspaces)) or list(keys)
    if not named:
        return [Connection(url, _read_key(key_file, env), _read_workspace(None, env))]
    return [
        Connection(url, keys[workspace] if workspace in keys else _read_key(key_file, env), workspace)
        for workspace in named
    ]


def read_proxy(base_url: str) -> str | None:
    """Return the URL of the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY (or the system) name for a base URL.

    Null for plain http://, where a proxy would read the key, and for this machine. Raises UsageError for a kind of
    proxy that does not work here; its address is not shown, since it may hold a password.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme != "https" or is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass  # here, since it takes 20 ms

    if proxy_bypass(host):
        return None
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address:
        return None
    address = address if "://" in address else f"http://{address}"
    try:
        proxy = urlsplit(address)
        usable = proxy.scheme in ("http", "https") and proxy.hostname and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("HTTPS_PROXY or ALL_PROXY: only http:// and https:// proxies work here; mend it, or unset it")
    return address


def is_loopback(host: str) -> bool:
    """Return whether a host name can only be this machine: 127.0.0.0/8, ::1 or localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_base_url(base_url: str | None, region: str | None, env: Mapping[str, str], *, allow_http: bool) -> str:
    if base_url is not None:
        return _checked_url(base_url, "--base-url", allow_http=allow_http)
    if region is not None:
        return _region_url(region, "--region")
    if env.get("EXTEND_BASE_URL"):
        return _checked_url(env["EXTEND_BASE_URL"], "EXTEND_BASE_URL", allow_http=allow_http)
    return _region_url(env.get("EXTEND_REGION") or "us", "EXTEND_REGION")


def _region_url(region: str, source: str) -> str:
    if region.strip() not in REGIONS:
        raise UsageError(f"{source}: {region[:40]!r} is no region; choose one of {', '.join(REGIONS)}")
    return REGIONS[region.strip()]


def _checked_url(text: str, source: str, *, allow_http: bool) -> str:
    """Return the URL without a slash at its end. The text is never shown whole: it may hold a password."""
    example = f"give the API's address alone, such as {REGIONS['us']}"
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{source}: no URL; {example}") from None  # its text may hold a password
    _check_parts(parts, text, source, example)
    if not _is_host(host) or port == 0:
        raise UsageError(f"{source}: the URL has no proper host; {example}")
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise UsageError(
            f"{source}: plain http:// to {host} would send the API key unencrypted; use https://, "
            "or say --allow-http if you are sure of the network"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _check_parts(parts: SplitResult, text: str, source: str, example: str) -> None:
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{source}: the URL must start with https://; {example}")
    if "@" in parts.netloc:
        raise UsageError(f"{source}: no user name or password may be in the URL; {example}")
    if "?" in text or "#" in text:
        raise UsageError(f"{source}: no query (?) or fragment (#) may be in the URL; {example}")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise UsageError(f"{source}: the URL's path holds something that does not belong there; {example}")


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def _read_key(key_file: str | Path | None, env: Mapping[str, str]) -> Secret:
    if key_file is not None:
        return _checked_key(_read_key_file(key_file, "--key-file"), f"--key-file {key_file}")
    if env.get("EXTEND_API_KEY"):
        return _checked_key(env["EXTEND_API_KEY"], "EXTEND_API_KEY")
    if env.get("EXTEND_API_KEY_FILE"):
        path = env["EXTEND_API_KEY_FILE"]
        return _checked_key(_read_key_file(path, "EXTEND_API_KEY_FILE"), f"EXTEND_API_KEY_FILE {path}")
    raise UsageError(
        "no API key: type `export EXTEND_API_KEY=…` with the key from your Extend dashboard (or name a file that holds "
        "it with --key-file), or try `pipeline demo`, which needs none"
    )


def _read_key_file(path: str | Path, source: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "no proper path"
        raise UsageError(f"{source}: {path} cannot be read ({reason}); name a file that holds the API key") from error
    if len(content) > _MAX_KEY_FILE_BYTES:
        raise UsageError(f"{source}: {path} is too long for a key; name a file that holds the API key alone")
    # What is no UTF-8 becomes U+FFFD, which no key may hold: refused with the other wrong characters.
    return content.decode("utf-8-sig", errors="replace")


def _read_keys(env: Mapping[str, str]) -> dict[str, Secret]:
    source = "EXTEND_API_KEYS"
    keys: dict[str, Secret] = {}
    for number, pair in enumerate((env.get(source) or "").split(), 1):
        workspace, equals, key = pair.partition("=")
        if not equals or not _WORKSPACE.fullmatch(workspace):
            raise UsageError(f"{source}: entry {number} is not of the form ws_…=key (it is not shown here)")
        if workspace in keys:
            raise UsageError(f"{source}: {workspace} is there twice; give each workspace one key")
        keys[workspace] = _checked_key(key, f"{source}, {workspace}")
    return keys


def _checked_key(text: str, source: str) -> Secret:
    key = text.strip()
    if not key:
        raise UsageError(f"{source}: the API key is empty; put the key from your Extend dashboard there")
    if key.lower().startswith("bearer "):
        raise UsageError(f"{source}: give the API key alone, without the word Bearer")
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{source}: the API key holds blanks, line breaks or characters that no key has (the key is not shown "
            "here); copy it again from your Extend dashboard"
        )
    return Secret(key)


def _read_workspace(workspace: str | None, env: Mapping[str, str]) -> str | None:
    source = "EXTEND_WORKSPACE_ID" if workspace is None else "--workspace"
    text = (env.get("EXTEND_WORKSPACE_ID") or None) if workspace is None else workspace
    return None if text is None else _checked_workspace(text, source)


def _checked_workspace(text: str, source: str) -> str:
    if not _WORKSPACE.fullmatch(text.strip()):
        # Not shown: what stands in the wrong place may be the key.
        raise UsageError(f"{source}: this is no workspace ID; one looks like ws_AbC123 (see your dashboard's URL)")
    return text.strip()
