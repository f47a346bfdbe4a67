"""A loop around httpx, 64 runs at a time, that keeps the answers' bytes as lines of a file and looks at none of them.

python -m tests.benchmarks.peers.httpx_by_id BASE_URL IDS_FILE FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_AT_A_TIME = 64


def main(base_url: str, ids_file: str, folder: str) -> None:
    """Read the runs, and write the file."""
    run_ids = Path(ids_file).read_text().split()
    with Path(folder, "runs.jsonl").open("wb") as file:
        asyncio.run(read(base_url, iter(run_ids), file))


async def read(base_url: str, run_ids: Iterator[str], file: BinaryIO) -> None:
    """Write each answer as it comes."""
    import httpx

    limits = httpx.Limits(max_connections=_AT_A_TIME, max_keepalive_connections=_AT_A_TIME)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, headers={"Authorization": "Bearer key"}) as client:

        async def work() -> None:
            for run_id in run_ids:
                answer = await client.get(f"/classify_runs/{run_id}")
                answer.raise_for_status()
                file.write(answer.content + b"\n")

        await asyncio.gather(*(work() for _ in range(_AT_A_TIME)))


if __name__ == "__main__":
    main(*sys.argv[1:])
