"""A lake in a bucket, over a real S3 protocol server: the same rows as in a folder, on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.catalog import Lake
from pipeline.lake import LakeFiles
from pipeline.opening import open_lake
from tests.bucket import Bucket
from tests.conftest import classify, land


def rows_of(place: Path | str) -> dict[str, Any]:
    """Return what a lake says of its runs, by ID, but for which load brought it."""
    with Lake(place) as lake:
        rows = lake.runs().to_arrow_table().to_pylist()
    assert len({row["run_id"] for row in rows}) == len(rows)
    return {row["run_id"]: {name: value for name, value in row.items() if name != "load_id"} for row in rows}


def test_what_lands_in_a_bucket_is_there_for_another_machine_as_it_is_in_a_folder(
    bucket: Bucket, tmp_path: Path
) -> None:
    payloads = [classify("clr_1"), classify("clr_2", createdAt="2026-11-03T01:00:00Z")]
    land(LakeFiles(tmp_path / "folder"), *payloads)
    land(open_lake(bucket.url), *payloads)
    with bucket.on("b") as url:
        assert rows_of(url) == rows_of(tmp_path / "folder")
        assert len(rows_of(url)) == 2
    names = [name for name in bucket.names() if not name.startswith(".") and not name.startswith("raw/")]
    assert names == [
        "lake.json", "loads/" + names[1].removeprefix("loads/"),
        "runs/day=2026-11-02/runs.parquet", "runs/day=2026-11-03/runs.parquet",
    ]  # fmt: skip
