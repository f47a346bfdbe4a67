"""What was taken out of a lake for good, so that nothing brings it back: no rebuild, no sync, no saved file.

    LAKE/erased.json   salted hashes of the IDs of forgotten runs, and the day before which runs are pruned

The IDs themselves are kept nowhere. Where another run speaks of a forgotten one, in a breakdown say, a pseudonym stands
in its place, the same everywhere: its credits are still counted, and once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipeline import durable, sealed
from pipeline.errors import LakeDamagedError, NewerLakeError
from pipeline.kinds import KINDS, kind_of
from pipeline.values import time_value

if TYPE_CHECKING:
    from pipeline.lake import LakeFiles

VERSION = 1
_PSEUDONYM = "erased"
_PREFIXES = tuple(kind.prefix for kind in KINDS)
# An ID after each prefix, in the midst of other IDs too. That it begins with the one byte that all prefixes end in
# makes the search some forty times as fast as one for the prefixes.
_MENTION = re.compile(f"_(?:{'|'.join(f'(?<={prefix})' for prefix in _PREFIXES)})(?=([A-Za-z0-9_-]{{1,128}}))")
_MENTION_BYTES = re.compile(_MENTION.pattern.encode())
_KEPT_OF_NESTED = ("object", "status", "credits", "charges")
"""What stays of a forgotten run inside of another run's payload: what that run was charged for."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What is gone from a lake. `runs` has by hashed ID when it was forgotten; runs made before `pruned_before` are
    gone as well (null: none). `unfinished` tells that taking them out has not come to its end.

    `oldest` has, by load and size of its log, the day of the oldest run of which that log holds a payload.
    """

    salt: str = field(default_factory=lambda: os.urandom(16).hex())
    runs: Mapping[str, str] = field(default_factory=dict)
    pruned_before: date | None = None
    unfinished: bool = False
    oldest: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.runs) or self.pruned_before is not None

    def has(self, run_id: str) -> bool:
        """Tell whether a run was forgotten."""
        return bool(self.runs) and self._hash(run_id) in self.runs

    def with_runs(self, run_ids: Iterable[str], now: datetime) -> Erased:
        """Return this with more runs forgotten, and the taking out begun."""
        told = {self._hash(run_id): now.astimezone(UTC).isoformat() for run_id in run_ids}
        return replace(self, runs={**told, **self.runs}, unfinished=True)

    def pseudonym(self, run_id: str) -> str:
        """Return what stands where other runs spoke of a forgotten one."""
        kind = kind_of(run_id)
        return f"{kind.prefix if kind else ''}{_PSEUDONYM}{self._hash(run_id)[:24]}"

    def mentions(self, text: str | bytes) -> set[str]:
        """Return the forgotten runs of which a text speaks."""
        if not self.runs:
            return set()
        return {run_id for run_id in iter_mentions(text) if self.has(run_id)}

    def is_pruned(self, payload: Any, fetched_at: datetime) -> bool:
        """Tell whether a payload is of a run made before `pruned_before`."""
        if self.pruned_before is None:
            return False
        return age_of({"fetched_at": fetched_at, **told_times(payload)}) < self.pruned_before

    def admitted(self, run_id: str, body: bytes, fetched_at: datetime) -> bytes | None:
        """Return a payload as it may be logged, without what it tells of forgotten runs; None where it may not be."""
        if not self:
            return body
        if self.has(run_id) or (self.pruned_before and self.is_pruned(json.loads(body), fetched_at)):
            return None
        return self.scrub_line(body)

    def scrub_line(self, line: bytes) -> bytes:
        """Return a line of JSON without what it tells of forgotten runs; the very same bytes where it tells nothing."""
        plain = line
        if self.runs and b"\\u00" in line:  # an ID may be written with escapes
            plain = json.dumps(json.loads(line)).encode()
        if not self.mentions(plain):
            return line
        end = b"\n" if line.endswith(b"\n") else b""
        return json.dumps(self.scrub(json.loads(plain)), separators=(", ", ": ")).encode() + end

    def scrub(self, value: Any) -> Any:
        """Return a value of JSON, or of a row, with pseudonyms, and without what is nested of a forgotten run."""
        if isinstance(value, str):
            return self._scrub_text(value)
        if isinstance(value, list):
            return [self.scrub(each) for each in value]
        if isinstance(value, tuple):
            return tuple(self.scrub(each) for each in value)
        if not isinstance(value, dict):
            return value
        nested_id = value.get("id")
        if isinstance(nested_id, str) and self.has(nested_id):
            kept = {name: value[name] for name in _KEPT_OF_NESTED if name in value}
            return {"id": self.pseudonym(nested_id)} | kept
        return {self._scrub_text(name): self.scrub(each) for name, each in value.items()}

    def _scrub_text(self, text: str) -> str:
        # The longest first: an ID may begin as another does.
        for run_id in sorted(self.mentions(text), key=len, reverse=True):
            text = re.sub(rf"{re.escape(run_id)}(?![A-Za-z0-9_-])", self.pseudonym(run_id), text)
        return text

    def _hash(self, run_id: str) -> str:
        return hashlib.sha256(f"{self.salt}{run_id}".encode("utf-8", "surrogatepass")).hexdigest()


def iter_mentions(text: str | bytes) -> Iterator[str]:
    """Yield whatever in a text can be a run's ID, repeated ones too."""
    if isinstance(text, bytes):
        for found in _MENTION_BYTES.finditer(text):
            before, rest = text[max(0, found.start() - 12) : found.end()].decode("latin-1"), found[1].decode()
            yield from (prefix + rest for prefix in _PREFIXES if before.endswith(prefix))
    else:
        for match in _MENTION.finditer(text):
            before, rest = text[max(0, match.start() - 12) : match.end()], match[1]
            yield from (prefix + rest for prefix in _PREFIXES if before.endswith(prefix))


def is_pseudonym(run_id: str) -> bool:
    """Tell whether an ID stands for a forgotten run."""
    kind = kind_of(run_id)
    return kind is not None and run_id.startswith(f"{kind.prefix}{_PSEUDONYM}")


def age_of(row: Mapping[str, Any]) -> date:
    """Return the day on which a run counts as made: by the API's word, else the day on which it was received."""
    time: datetime = row["created_at"] or row["initial_run_at"] or row["fetched_at"]
    return time.astimezone(UTC).date()


def told_times(payload: Any) -> dict[str, datetime | None]:
    """Return when a payload says that its run was made; null where it does not."""
    found: dict[str, datetime | None] = {}
    for column, name in (("created_at", "createdAt"), ("initial_run_at", "initialRunAt")):
        text = payload.get(name) if isinstance(payload, dict) else None
        try:
            found[column] = time_value(text) if isinstance(text, str) else None
        except (ValueError, OverflowError):
            found[column] = None
    return found


def read_erased(lake: LakeFiles) -> Erased:
    """Return what is gone from a lake; raise LakeDamagedError where its note cannot be read."""
    try:
        found = sealed.parse_note(
            lake.erased_path.read_bytes(), is_of_other_version=lambda note: note["version"] > VERSION
        )
        if found["version"] > VERSION:
            raise NewerLakeError(f"{lake.erased_path}: written by a newer version of this program; upgrade it")
        before = found["pruned_before"]
        oldest = {load_id: (int(size), str(day)) for load_id, (size, day) in found["oldest"].items()}
        runs = {str(name): str(time) for name, time in found["runs"].items()}
        pruned = None if before is None else date.fromisoformat(before)
        return Erased(str(found["salt"]), runs, pruned, bool(found["unfinished"]), oldest)
    except FileNotFoundError:
        return Erased()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeDamagedError(
            f"{lake.erased_path}: damaged, or edited by hand ({sealed.one_line(error)}); without it forgotten runs "
            "could come back: restore it from a copy, or remove it and forget them again"
        ) from error


def write_erased(lake: LakeFiles, erased: Erased) -> None:
    """Replace the note of what is gone from a lake; its writer holds the lake's lock."""
    before = erased.pruned_before
    content = {
        "version": VERSION,
        "salt": erased.salt,
        "unfinished": erased.unfinished,
        "pruned_before": None if before is None else before.isoformat(),
        "runs": dict(erased.runs),
        "oldest": {load_id: list(each) for load_id, each in erased.oldest.items()},
    }
    durable.write_file(lake.erased_path, sealed.note_bytes(content))
