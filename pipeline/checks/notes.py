"""Every note of a lake (a small JSON file), to its last byte, by the checksum in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline import sealed, sync_state
from pipeline.erased import read_erased
from pipeline.errors import LakeDamagedError, NewerLakeError
from pipeline.lake import LakeFiles
from pipeline.ledger import LedgerFiles, is_of_other_version


def note_paths(lake: LakeFiles) -> list[Path]:
    """Return the notes that the lake has, but for the ledger's, which is beside it."""
    own = [lake.version_path, lake.moving_path]
    return [path for path in own if path.exists()] + sync_state.state_paths(lake)


def iter_damaged(lake: LakeFiles) -> Iterator[tuple[Path, str]]:
    """Yield the notes that are not what was written, and why."""
    readers: dict[Path, Callable[[], object]] = {
        lake.version_path: lake.is_current,
        lake.moving_path: lake.read_moves,
    }
    for path in note_paths(lake):
        try:
            readers.get(path, lambda path=path: sync_state.parse_state(path.read_bytes()))()
        except FileNotFoundError:
            continue
        except (LakeDamagedError, ValueError, TypeError, KeyError, AttributeError) as error:
            yield path, sealed.one_line(error.__cause__ if error.__cause__ else error)


def refuse_newer(lake: LakeFiles) -> None:
    """Raise LakeDamagedError, by name, where a newer version of this program wrote the lake, or a note in it."""
    lake.refuse_newer()
    try:
        read_erased(lake)
    except NewerLakeError:
        raise
    except LakeDamagedError:
        pass  # it is told with the rest
    for path in sync_state.state_paths(lake):
        sync_state.refuse_newer(path, _state(path))


def _state(path: Path) -> dict[str, Any]:
    try:
        return sync_state.parse_state(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return {}


def ledger_damage(ledger: LedgerFiles) -> str | None:
    """Return why the ledger's manifest is not what was written; None where it is, or there is none."""
    try:
        sealed.parse_note(ledger.manifest_path.read_bytes(), is_of_other_version=is_of_other_version)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return sealed.one_line(error)
    return None
