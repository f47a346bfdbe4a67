"""What a repair is about to mend, noted beside the lake until it has: what it sets aside first can be seen no more.

LAKE/repairing.json   only while a repair is at work, or after one that was cut short: the checks that had failed
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline import durable, sealed
from pipeline.errors import LakeDamagedError
from pipeline.lake import LakeFiles


def repair_note(lake: LakeFiles) -> Path:
    """Return where the note is."""
    return lake.folder / "repairing.json"


def begin_repair(lake: LakeFiles, broken: Iterable[str]) -> None:
    """Note the names of the checks that failed."""
    durable.write_file(repair_note(lake), sealed.note_bytes({"broken": sorted(broken)}))


def end_repair(lake: LakeFiles) -> None:
    """Note that all is mended that can be."""
    durable.remove_file(repair_note(lake))


def unfinished_repair(lake: LakeFiles) -> set[str]:
    """Return the names that a repair noted which was cut short, or is at work; none where there is none.

    Where the note is damaged itself, what is made anew from the raw log after damage is what may be missing.
    """
    try:
        return set(sealed.read_note(repair_note(lake), is_of_other_version=lambda _note: False)["broken"])
    except FileNotFoundError:
        return set()
    except LakeDamagedError:
        return {"files undamaged"}
