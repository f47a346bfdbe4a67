"""Parts of one load's raw log that other processes write: on Spark, one each attempt of a task.

    LAKE/raw/YYYY-MM/<load_id>.parts/<name>.jsonl.zst

Nothing lands from there: who began the load appends to its log the parts that count, and removes the folder. Where that
process has died, whatever had arrived is appended by `recover`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline import raw

_SUFFIX = ".parts"


def parts_folder(log: Path) -> Path:
    """Return where the parts of a log are."""
    return log.with_name(log.name.removesuffix(raw.SUFFIX) + _SUFFIX)


def part_path(log: Path, name: str) -> Path:
    """Return where the part of this name is."""
    return parts_folder(log) / f"{name}{raw.SUFFIX}"


def list_parts(log: Path) -> list[Path]:
    """Return the parts of a log, by name."""
    return sorted(parts_folder(log).glob(f"*{raw.SUFFIX}"))


def logs_with_parts(raw_folder: Path) -> list[Path]:
    """Return the logs of which there are parts, whether or not the log itself is there."""
    return [path.with_name(path.stem + raw.SUFFIX) for path in sorted(raw_folder.glob(f"*/*{_SUFFIX}"))]


def iter_lines(part: Path) -> Iterator[list[bytes]]:
    """Yield the lines of each whole frame; the torn end that a killed process leaves is no frame."""
    for frame in raw.iter_frames(part):
        if isinstance(frame, raw.Frame):
            yield frame.lines


def adopt_parts(log: Path) -> None:
    """Append to the log of a load that died whatever its parts hold, and remove them.

    Where this is itself cut short it is done again: what is then in the log twice lands once.
    """
    parts = list_parts(log)
    if parts:
        writer = raw.RawWriter.reopen(log)
        try:
            for part in parts:
                for lines in iter_lines(part):
                    for line in lines:
                        writer.append(line + b"\n")
                    writer.checkpoint()
        finally:
            writer.close()
    remove_parts(log)


def remove_parts(log: Path) -> None:
    """Remove the parts of a log; an attempt that still writes one writes to nowhere from then on."""
    shutil.rmtree(parts_folder(log), ignore_errors=True)
