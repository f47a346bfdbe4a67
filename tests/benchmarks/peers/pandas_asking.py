"""What a user of pandas would write: credits and failures out of the lake's files.

    python -m tests.benchmarks.peers.pandas_asking LAKE credits|reason|processor
    python -m tests.benchmarks.peers.pandas_asking LAKE page DAY

Prints JSON. Credits are read file by file, since ten million lists of charges do not fit the memory; as floats, and
taking for granted that no resource is named twice, which the ledger makes sure of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

_PAGE = 100


def credits(lake: str) -> list[tuple[str, str, float]]:
    """Return the credits of each day and kind."""
    parts = []
    for path in sorted(Path(lake, "runs").glob("day=*/runs.parquet")):
        runs = pd.read_parquet(path, columns=["created_at", "breakdown"])
        lines = runs.explode("breakdown", ignore_index=True)
        found = pd.DataFrame(
            {
                "day": lines["created_at"].dt.strftime("%Y-%m-%d"),
                "kind": [entry["object"] for entry in lines["breakdown"]],
                "credits": [float(entry["credits"]) for entry in lines["breakdown"]],
            }
        )
        parts.append(found.groupby(["day", "kind"], as_index=False)["credits"].sum())
    total = pd.concat(parts).groupby(["day", "kind"], as_index=False)["credits"].sum()
    return list(total.itertuples(index=False, name=None))


def failures(lake: str, column: str) -> dict[str, int]:
    """Return how many runs failed, by a column's values."""
    runs = pd.read_parquet(Path(lake, "runs"), columns=["status", column])
    counted = runs[runs["status"] == "FAILED"].groupby(column).size()
    return {str(name): int(count) for name, count in counted.items()}


def page(lake: str, day: str) -> list[str]:
    """Return the newest runs of a day."""
    columns = ["run_id", "status", "credits", "processor_name", "created_at"]
    runs = pd.read_parquet(Path(lake, "runs", f"day={day}", "runs.parquet"), columns=columns)
    newest = runs.sort_values(["created_at", "run_id"], ascending=[False, True]).head(_PAGE)
    return [str(each) for each in newest["run_id"]]


def main(lake: str, question: str, *more: str) -> Any:
    """Return the answer."""
    if question == "credits":
        return credits(lake)
    if question == "page":
        return page(lake, *more)
    return failures(lake, {"reason": "failure_reason", "processor": "processor_name"}[question])


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
