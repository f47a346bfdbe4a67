"""Write a raw log anew without some of its records. The one thing that ever changes a log that has been written.

Frames of which nothing changes are copied as they are. What cannot be read is left out: nobody can say what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline import durable, raw

Change = Callable[[raw.Frame], "list[bytes | None] | None"]
"""Given a frame: its lines as they shall be, null for those to leave out; null where nothing changes."""


_OF_RUNS = tuple(b'{"record": "%s"' % name for name in (b"run", b"missing", b"failed"))


@dataclass(slots=True)
class Edited:
    """What became of a log: how many records were left out and altered, how many bytes could not be read, its new size,
    and how far the new log has landed, in bytes. `payloads` counts what is left of runs and of IDs that did not come.
    """

    removed: int = 0
    altered: int = 0
    lost_bytes: int = 0
    size: int = 0
    landed_bytes: int = 0
    payloads: int = 0

    @property
    def is_changed(self) -> bool:
        """Whether anything was left out or altered."""
        return bool(self.removed or self.altered or self.lost_bytes)


def edit_log(path: Path, landed_bytes: int, change: Change, *, settle: Callable[[Edited, Path], None]) -> Edited:
    """Replace a log by what `change` makes of its records, if it changes any; return what was done.

    `settle` is called with the new log's path when it is on the disk, before it takes the old one's place. Where it
    raises, the old one stays.
    """
    temporary = path.with_name(f".{path.name}{durable.TEMPORARY_SUFFIX}")
    edited = Edited()
    try:
        with durable.creating(temporary) as new, path.open("rb") as old:
            start = 0
            for part in raw.iter_frames(path):
                if isinstance(part, raw.Damage):
                    edited.lost_bytes += part.end - part.start
                else:
                    new.write(_edited_frame(old, start, part, change(part), edited))
                if part.end <= landed_bytes:
                    edited.landed_bytes = new.tell()
                start = part.end
            edited.size = new.tell()
        if edited.is_changed:
            settle(edited, temporary)
            durable.replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return edited


def _edited_frame(
    old: BinaryIO, start: int, frame: raw.Frame, lines: list[bytes | None] | None, edited: Edited
) -> bytes:
    """Return a frame as it shall be: the very bytes where nothing changes, none where nothing is left."""
    if lines is None:
        edited.payloads += sum(line.startswith(_OF_RUNS) for line in frame.lines)
        old.seek(start)
        return old.read(frame.end - start)
    kept = [line for line in lines if line is not None]
    edited.removed += len(lines) - len(kept)
    edited.altered += len(kept) - len(set(kept) & set(frame.lines))
    edited.payloads += sum(line.startswith(_OF_RUNS) for line in kept)
    return raw.pack_frame(kept) if kept else b""
