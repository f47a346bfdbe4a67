"""What sync knows of how far it has come: one small JSON file a workspace and kind, in the lake.

    LAKE/sync/<workspace>/<kind>.json      how far the kind's list has been walked
    LAKE/sync/<workspace>/details.json     up to when the lake was searched for runs to be asked for by ID
    LAKE/sync/<workspace>/.lock            held while a sync of that workspace is at work

The workspace of a key that needs no workspace ID is called `default`. A file is written only after everything that it
speaks of has landed, so a lake on another machine goes on where it stopped on this one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import durable, sealed
from pipeline.errors import LakeLockedError, NewerLakeError
from pipeline.kinds import Kind
from pipeline.values import time_value

if TYPE_CHECKING:
    from pipeline.lake import LakeFiles

VERSION = 2
"""1: the first. 2: with a checksum."""
T = TypeVar("T", bound="KindState | DetailState")


@dataclass(frozen=True, slots=True)
class Gap:
    """The rest of a walk that was cut short: from a page token on, down to a time (null: to the end of the list).

    `watermark` and `walked_at` are what they would have become, had it come to its end.
    """

    token: str
    watermark: datetime | None
    walked_at: datetime
    down_to: datetime | None


@dataclass(frozen=True, slots=True)
class KindState:
    """How far one kind's list has been walked.

    `watermark` is the newest `updatedAt` that was certainly seen, `walked_at` when the walk that saw it began, by the
    API's clock: both are null before the first walk has come to its end, the watermark also where a list is empty or
    not sorted. `back_to` is how far back the walks went; null is to the beginning. `runs` is how many runs the list has
    between, at most, as far as the walks came. `followed_at` is when all unfinished runs were last seen to.
    """

    watermark: datetime | None = None
    walked_at: datetime | None = None
    back_to: datetime | None = None
    gap: Gap | None = None
    followed_at: datetime | None = None
    runs: int = 0

    def down_to(self, overlap: timedelta) -> datetime | None:
        """Return where the next walk may stop: all that was updated before has been seen, or is not wanted (before
        `back_to`). Null is nowhere.

        The overlap counts from when the last walk began: by then, a run updated longer ago had become visible.
        """
        if self.walked_at is None:
            return None
        seen = min(time for time in (self.watermark, self.walked_at - overlap) if time is not None)
        return seen if self.back_to is None else max(seen, self.back_to)


@dataclass(frozen=True, slots=True)
class DetailState:
    """Up to when the lake was searched, by level of detail: day files that changed later must be searched again."""

    none: datetime | None = None
    credits: datetime | None = None
    all: datetime | None = None


class SyncFiles:
    """The state files of one workspace of one API."""

    def __init__(self, lake: LakeFiles, workspace_id: str | None, base_url: str) -> None:
        self._lake = lake
        self.folder = lake.folder / "sync" / (workspace_id or "default")
        self._identity = {"base_url": base_url, "workspace_id": workspace_id}

    @contextlib.contextmanager
    def locked(self, *, tell: Callable[[str], None] = lambda _message: None) -> Iterator[None]:
        """Hold the workspace's lock; raise LakeLockedError at once where another sync is at work on it."""
        import filelock  # here, since readers do without

        self._lake.make_folder()
        durable.make_folder(self.folder)
        lock = filelock.FileLock(self.folder / ".lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise LakeLockedError(
                f"{self.folder}: another sync of this workspace is at work on this lake; let it finish, then try again"
            ) from error
        try:
            for path in self.folder.glob(f".*{durable.TEMPORARY_SUFFIX}"):
                path.unlink(missing_ok=True)
            with contextlib.ExitStack() as stack:
                if self._lake.mirror is not None:
                    stack.enter_context(self._lake.mirror.sync_turn(self.folder.name, tell=tell))
                yield
        finally:
            lock.release()

    def read_kind(self, kind: Kind, *, tell: Callable[[str], None]) -> KindState:
        """Return how far a kind has been walked. What cannot be used is told, and everything walked anew."""
        return self._read(kind.object, KindState, tell)

    def write_kind(self, kind: Kind, state: KindState) -> None:
        """Note how far a kind has been walked."""
        self._write(kind.object, state)

    def read_details(self, *, tell: Callable[[str], None]) -> DetailState:
        """Return up to when the lake was searched for runs to ask for by ID."""
        return self._read("details", DetailState, tell)

    def write_details(self, state: DetailState) -> None:
        """Note up to when the lake was searched."""
        self._write("details", state)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str, kind: type[T], tell: Callable[[str], None]) -> T:
        path = self._path(name)
        try:
            content = parse_state(path.read_bytes())
            refuse_newer(path, content)
            if content["base_url"] != self._identity["base_url"]:
                tell(f"{path}: of another API ({content['base_url']}), so everything is walked")
                return kind()
            parsed: T = _parsed(kind, content)
            return parsed
        except FileNotFoundError:
            return kind()
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            tell(f"{path}: cannot be used ({error}), so everything is walked")
            return kind()

    def _write(self, name: str, state: KindState | DetailState) -> None:
        content = {"version": VERSION, **self._identity, **_written(state)}
        durable.write_file(self._path(name), sealed.note_bytes(content))


def state_paths(lake: LakeFiles) -> list[Path]:
    """Return the state files of all workspaces."""
    return sorted((lake.folder / "sync").glob("*/*.json"))


def seal_states(lake: LakeFiles) -> None:
    """Write states of the first version as this one does. One that cannot be read stays as it is, to be told."""
    for path in state_paths(lake):
        try:
            content = parse_state(path.read_bytes())
        except (ValueError, FileNotFoundError):
            continue
        if content["version"] == 1:
            durable.write_file(path, sealed.note_bytes({**content, "version": VERSION}))


def refuse_newer(path: Path, content: dict[str, Any]) -> None:
    """Raise NewerLakeError where a newer version of this program wrote a state."""
    if (version := int(content.get("version", VERSION))) > VERSION:
        raise NewerLakeError(
            f"{path}: written by a newer version of this program (state {version}, this one knows up to "
            f"{VERSION}); upgrade with `pip install --upgrade extend-pipeline`"
        )


def parse_state(text: bytes) -> dict[str, Any]:
    """Return what a state file says; raise ValueError where it is not what was written."""
    content: dict[str, Any] = sealed.parse_note(text, is_of_other_version=lambda note: int(note["version"]) != VERSION)
    return content


def _written(state: KindState | DetailState | Gap) -> dict[str, Any]:
    content = {each.name: getattr(state, each.name) for each in fields(state)}
    return {name: _plain(value) for name, value in content.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return _written(value) if isinstance(value, Gap) else value


def _parsed(kind: type[Any], content: dict[str, Any]) -> Any:
    values = {each.name: content[each.name] for each in fields(kind)}
    for name, value in values.items():
        if name in _TIMES and value is not None:
            values[name] = time_value(value)
    if (gap := values.get("gap")) is not None:
        values["gap"] = _parsed(Gap, gap)
        if values["gap"].walked_at is None:
            raise ValueError("the gap of no walk")
    for name, value in values.items():
        if type(value) is not _OTHERS.get(name, type(value)):
            raise ValueError(f"{name}: {value!r:.40}")
    return kind(**values)


_OTHERS = {"token": str, "runs": int}
_TIMES = {"watermark", "walked_at", "back_to", "followed_at", "down_to", "none", "credits", "all"}
