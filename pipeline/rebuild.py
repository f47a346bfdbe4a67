"""Make the lake anew from its raw log, after a change of the schema or of how payloads are flattened. No requests."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import raw
from pipeline.at_work import at_rest
from pipeline.errors import UsageError
from pipeline.lake import LakeFiles, UnlandedLog
from pipeline.landing import land_logs
from pipeline.loads import Tell, recover
from pipeline.staging import Landing


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did: how many logs were read, runs made anew and as they were, and rows that no log holds."""

    logs: int
    runs: int
    unchanged: int
    kept: int


def rebuild_lake(lake: LakeFiles, *, tell: Tell = lambda _message: None) -> Rebuilt:
    """Flatten every payload of the raw log again and replace the rows; return what was done.

    What came from payloads that no log holds (it was not kept, was pruned, is damaged, or its load is still running)
    stays as it is. Readers see each day's file as it was or as it will be. Raises UsageError where
    there is no raw log.
    """
    recover(lake, tell=tell)
    logs = [UnlandedLog(path, path.name.removesuffix(raw.SUFFIX), 0) for path in lake.fetch_logs()]
    if not logs:
        raise UsageError(f"{lake.raw_folder}: no raw log here, so there is nothing to rebuild the lake from")

    def land_again() -> tuple[list[Landing], dict[str, int | None], int]:
        landings = land_logs(lake, [log for log in logs if _is_at_rest(lake, log, tell)], replace=True)
        loads = lake.read_loads()
        landed_bytes = dict(zip(loads["load_id"].to_pylist(), loads["raw_bytes"].to_pylist(), strict=True))
        return landings, landed_bytes, sum(len(lake.read_run_ids(day)) for day in lake.days())

    landings, landed_bytes, total = lake.write(land_again, tell=tell)
    for landing in landings:
        _tell_damage(landing, landed_bytes.get(landing.load_id) or 0, tell)
    runs, unchanged = sum(each.landed for each in landings), sum(each.unchanged for each in landings)
    return Rebuilt(len(landings), runs + unchanged, unchanged, total - runs - unchanged)


def _tell_damage(landing: Landing, landed_bytes: int, tell: Tell) -> None:
    """Tell what of a log cannot be read, and whether an end of it is missing that had landed."""
    for damage in landing.damaged:
        tell(f"load {landing.load_id}: bytes {damage.start} to {damage.end} of its log are damaged, and lost")
    if not landing.damaged and landing.raw_bytes < landed_bytes:
        tell(f"load {landing.load_id}: its log ends at byte {landing.raw_bytes} of {landed_bytes}; the rest is lost")


def _is_at_rest(lake: LakeFiles, log: UnlandedLog, tell: Tell) -> bool:
    with at_rest(lake, log.load_id) as is_at_rest:
        if not is_at_rest:
            tell(f"load {log.load_id} is still running; it lands by itself")
        return is_at_rest
