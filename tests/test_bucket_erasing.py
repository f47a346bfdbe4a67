"""Erasing and rebuilding over a bucket, while another machine writes."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline.bucket import lease
from pipeline.checks.lake import check_lake
from pipeline.forget import forget_runs
from pipeline.loads import recover
from pipeline.opening import open_lake
from pipeline.prune import prune_runs
from pipeline.rebuild import rebuild_lake
from tests.bucket import Bucket
from tests.conftest import classify, land
from tests.logged import logged
from tests.test_bucket_writers import expect, on_machine, unless_again


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("forget", "erased.json"), ("forget", "runs/day=2026-11-02"), ("forget", "raw/"), ("forget", "loads/"),
        ("prune", "erased.json"), ("prune", "runs/day=2026-10-01"), ("prune", "raw/"),
        ("rebuild", "runs/day=2026-11-02"),
    ],
)  # fmt: skip
def test_who_erases_or_rebuilds_goes_on_by_itself_where_another_machine_was_faster(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    """The other machine takes this one for dead: it forgets another run of the same log and day, and lands one more."""
    mine, theirs = on_machine(bucket, "a"), on_machine(bucket, "b")
    days = {"clr_old": "2026-10-01", "clr_gone": "2026-11-02", "clr_theirs": "2026-10-01", "clr_kept": "2026-11-02"}
    runs = [classify(run_id, createdAt=f"{day}T09:30:00Z") for run_id, day in days.items()]
    land(mine, *runs, classify("clr_early", createdAt="2026-11-02T00:00:00Z"))
    if command == "rebuild":
        with mine.writing():
            mine.remove_day("2026-11-02")  # else there would be nothing to write
    came: list[str] = []

    def take_over() -> None:
        came.append(name)
        with monkeypatch.context() as patch:
            patch.setattr(lease.Lease, "_other", lambda _lease, _found: None)
            assert forget_runs(theirs, ["clr_theirs"]).search.is_clean
            land(theirs, classify("clr_late"))

    bucket.proxy.plan = unless_again(name, take_over)
    told: list[str] = []
    expected = {"clr_old", "clr_gone", "clr_kept", "clr_early", "clr_late"}
    if command == "forget":
        assert forget_runs(mine, ["clr_gone"], tell=told.append).search.is_clean
        expected -= {"clr_gone"}
    elif command == "prune":
        assert prune_runs(mine, date(2026, 11, 1), tell=told.append).search.is_clean
        expected -= {"clr_old"}
    else:
        rebuild_lake(mine, tell=told.append)
    assert came == [name]
    assert [text for text in told if text.endswith("reading it again, and merging again")]
    expect(bucket, expected)
    with bucket.on("reader"):
        lake = open_lake(bucket.url)
        assert set().union(*map(logged, lake.fetch_logs())) == expected
        # Of a log that both shortened, the row in `loads` may tell of the one and the log be the other's: then its end
        # counts as not landed, and the next command lands it again.
        recover(lake)
        assert [each for each in check_lake(lake).findings if each.state == "broken"] == []
