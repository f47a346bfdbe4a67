"""A loop around the vendor's own client, 64 runs at a time, to its objects and a CSV file of four of their fields.

python -m tests.benchmarks.peers.sdk_by_id BASE_URL IDS_FILE FOLDER
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path
from typing import Any

_AT_A_TIME = 64


def main(base_url: str, ids_file: str, folder: str) -> None:
    """Read the runs, and write the file."""
    found = asyncio.run(read(base_url, Path(ids_file).read_text().split()))
    with Path(folder, "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for run in found:
            credits = run.usage.credits if run.usage else None
            writer.writerow([run.id, run.status, run.failure_reason, credits])


async def read(base_url: str, run_ids: list[str]) -> list[Any]:
    """Return the client's objects."""
    from extend_ai import AsyncExtend

    client = AsyncExtend(token="key", base_url=base_url)
    places = asyncio.Semaphore(_AT_A_TIME)

    async def ask(run_id: str) -> Any:
        async with places:
            return await client.classify_runs.retrieve(run_id)

    return await asyncio.gather(*map(ask, run_ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
