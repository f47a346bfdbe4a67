"""The list endpoints: filters, orders, pages, and the opaque tokens between them."""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.kinds import Kind

from .model import Run
from .world import Payload, World

DEFAULT_PAGE = 20
_SORTED_BY = {"updatedAt": "updated_at", "createdAt": "created_at"}
_OF_PROCESSORS = {"batchId", "source", "sourceId"}
FILTERS: dict[str, set[str]] = {
    "classify_run": {"classifierId", *_OF_PROCESSORS},
    "extract_run": {"extractorId", *_OF_PROCESSORS},
    "split_run": {"splitterId", *_OF_PROCESSORS},
    "parse_run": _OF_PROCESSORS,
    "workflow_run": {"workflowId", "batchId"},
    "edit_run": {"source"},
    "verify_run": {"source", "sourceId", "riskLevel"},
}
"""The filters of each kind's list beside `status` and `fileNameContains`; others are ignored in silence."""

ParseOrder = Literal["scattered", "newest"]
"""How parse runs are listed: in an order that means nothing, or newest created first."""

_Key = tuple[str, str]
"""What a run is sorted by, and its ID."""


class InvalidRequestError(Exception):
    """The request's parameters are wrong; the message says how."""


@dataclass(slots=True)
class _Order:
    """The keys of the matching runs, sorted, as of a version of the world; `key_of` has them by run ID."""

    version: int
    keys: list[_Key]
    key_of: dict[str, _Key]

    def put(self, run_id: str, key: _Key | None) -> None:
        """Put a run where its key says, and nowhere else; null takes it out."""
        before = self.key_of.pop(run_id, None)
        if before is not None:
            del self.keys[bisect.bisect_left(self.keys, before)]
        if key is not None:
            bisect.insort(self.keys, key)
            self.key_of[run_id] = key


class Listing:
    """Answer the list endpoints of a world.

    `largest_page` bounds every page, and with `short_pages` some before the last hold fewer. `parse_order` is the order
    of parse runs, which nobody can choose. A page token is refused once `token_life` pages were served after its own.
    """

    def __init__(
        self,
        world: World,
        *,
        largest_page: int = 100,
        short_pages: bool = True,
        parse_order: ParseOrder = "scattered",
        token_life: int | None = None,
    ) -> None:
        if parse_order not in get_args(ParseOrder):
            raise ValueError(f"parse_order is {parse_order!r}; give one of {', '.join(get_args(ParseOrder))}")
        self.world = world
        self.largest_page = largest_page
        self.short_pages = short_pages
        self.parse_order: ParseOrder = parse_order
        self.token_life = token_life
        self._served = 0
        self._secret = hashlib.sha256(f"sandbox {world.seed}".encode()).digest()
        self._orders: dict[tuple[object, ...], _Order] = {}

    def page(self, kind: Kind, workspace: str, query: Mapping[str, str]) -> Payload:
        """Return one page of a kind's runs as the API answers it; raise InvalidRequestError for a wrong parameter.

        Pages may be shorter than asked for, and even empty, before the last: only a missing `nextPageToken` ends.
        """
        asked = {name: value for name, value in query.items() if name != "nextPageToken"}
        size = self._size(kind, asked)
        stamp = hashlib.sha256(json.dumps([kind.object, workspace, sorted(asked.items())]).encode()).hexdigest()[:16]
        number, after = self._open_token(query["nextPageToken"], stamp) if "nextPageToken" in query else (0, None)
        with self.world.lock:  # a run that changes between its place and its summary would be out of order
            order = self._order(kind, workspace, asked)
            start = bisect.bisect_right(order.keys, after) if after is not None else 0
            end = start + (_length(size, stamp, number) if self.short_pages else size)
            shown = order.keys[start:end]
            answer: Payload = {"object": "list", "data": [self.world.summary(run_id) for _, run_id in shown]}
        self._served += 1
        if end < len(order.keys):
            last = order.keys[end - 1] if end > start else after
            answer["nextPageToken"] = self._token(stamp, number + 1, last)
        return answer

    def _size(self, kind: Kind, asked: Mapping[str, str]) -> int:
        name = "limit" if kind.object == "parse_run" else "maxPageSize"
        value = asked.get(name, str(DEFAULT_PAGE))
        if not value.isascii() or not value.isdigit() or int(value) < 1:
            raise InvalidRequestError(f"{name} must be a whole number from 1 on")
        return min(int(value), self.largest_page)

    def _order(self, kind: Kind, workspace: str, asked: Mapping[str, str]) -> _Order:
        """Return the order of the matching runs, brought up to date by what changed since it was last asked for.

        The world's lock is held meanwhile.
        """
        by, descending = _sorting(kind, asked, self.parse_order)
        wanted = {name: asked[name] for name in ("status", "fileNameContains", *FILTERS[kind.object]) if name in asked}

        def key_of(run: Run | None) -> _Key | None:
            if run is None or run.workspace != workspace or not self._matches(run, wanted):
                return None
            return _key(run, by, descending=descending), run.run_id

        cache_key = (kind.object, workspace, by, descending, *sorted(wanted.items()))
        order = self._orders.get(cache_key)
        version = self.world.version
        if order is None:
            keys = sorted(key for run in self.world.iter_runs(workspace, kind.object) if (key := key_of(run)))
            order = _Order(version, keys, {key[1]: key for key in keys})
            if len(self._orders) > 64:
                self._orders.clear()
            if "riskLevel" not in wanted:  # a purge changes what matches, without changing the world's version
                self._orders[cache_key] = order
            return order
        for run_id in self.world.changed_since(order.version):
            order.put(run_id, key_of(self.world.find(run_id, kind)))
        order.version = version
        return order

    def _matches(self, run: Run, wanted: Mapping[str, str]) -> bool:
        return all(self._value(run, name, value) for name, value in wanted.items())

    def _value(self, run: Run, name: str, value: str) -> bool:
        if name == "fileNameContains":
            return any(value in file.name for file in run.files)
        if name == "riskLevel":
            return bool(self.world.summary(run.run_id)["riskLevel"] == value)
        if name in ("status", "batchId", "source", "sourceId"):
            field = {"batchId": "batch_id", "sourceId": "source_id"}.get(name, name)
            return bool(getattr(run, field) == value)
        return run.version is not None and run.version.processor_id == value

    def _token(self, stamp: str, number: int, after: _Key | None) -> str:
        body = json.dumps([stamp, number, after, self._served]).encode()
        return base64.urlsafe_b64encode(self._sign(body) + body).decode()

    def _open_token(self, token: str, stamp: str) -> tuple[int, _Key | None]:
        try:
            raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequestError("nextPageToken is invalid") from error
        if not hmac.compare_digest(raw[:12], self._sign(raw[12:])):
            raise InvalidRequestError("nextPageToken is invalid")
        made_for, number, after, served = json.loads(raw[12:])
        if made_for != stamp:
            raise InvalidRequestError("nextPageToken belongs to another request: other parameters must not change")
        if self.token_life is not None and self._served - served >= self.token_life:
            raise InvalidRequestError("nextPageToken has expired: begin again from the first page")
        return number, (after[0], after[1]) if after else None

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")[:12]


def _sorting(kind: Kind, asked: Mapping[str, str], parse_order: ParseOrder) -> tuple[str | None, bool]:
    if kind.object == "parse_run":
        return ("created_at", True) if parse_order == "newest" else (None, False)
    by, direction = asked.get("sortBy", "updatedAt"), asked.get("sortDir", "desc")
    if by not in _SORTED_BY:
        raise InvalidRequestError("sortBy must be updatedAt or createdAt")
    if direction not in ("asc", "desc"):
        raise InvalidRequestError("sortDir must be asc or desc")
    return _SORTED_BY[by], direction == "desc"


def _key(run: Run, by: str | None, *, descending: bool) -> str:
    if by is None:
        return f"{zlib.crc32(run.run_id.encode()):08x}"  # parse runs: an order that is fixed and means nothing
    since = round(getattr(run, by).timestamp() * 1_000_000)
    return f"{10**17 - since if descending else since:018d}"


def _length(size: int, stamp: str, number: int) -> int:
    """Return how many rows the page of this number holds: sometimes fewer than asked for, rarely none."""
    chance = zlib.crc32(f"{stamp}:{number}".encode()) % 40
    if chance == 0 and number > 0:
        return 0
    return max(1, size // 2) if chance <= 4 else size
