"""What dlt makes of it: a list walked page by page, as Parquet files of its filesystem destination.

    python -m tests.benchmarks.peers.dlt_lists BASE_URL FOLDER

Pages come one after the other, since each names the next; a page is yielded whole, the fastest form.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(base_url: str, folder: str) -> None:
    """Load the summaries of all classify runs into a folder."""
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DLT_DATA_DIR": f"{folder}/dlt",
    }
    import dlt
    import requests

    session = requests.Session()
    session.headers["Authorization"] = "Bearer key"

    @dlt.resource(name="runs", write_disposition="append", max_table_nesting=1)
    def runs() -> Iterator[list[dict[str, Any]]]:
        query = {"sortBy": "updatedAt", "sortDir": "desc", "maxPageSize": "100"}
        while True:
            answer = session.get(f"{base_url}/classify_runs", params=query, timeout=60)
            answer.raise_for_status()
            page = answer.json()
            yield page["data"]
            if "nextPageToken" not in page:
                return
            query["nextPageToken"] = page["nextPageToken"]

    loading = dlt.pipeline(
        "runs", destination=dlt.destinations.filesystem(Path(folder, "files").as_uri()), dataset_name="extend",
        pipelines_dir=f"{folder}/state",
    )  # fmt: skip
    loading.run(runs, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main(*sys.argv[1:])
