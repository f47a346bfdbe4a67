"""What dlt makes of it: the runs of a list of IDs, 32 at a time, as Parquet files of its filesystem destination.

    python -m tests.benchmarks.peers.dlt_by_id BASE_URL IDS_FILE FOLDER

The fastest sane form that was found: a resource of IDs in pages of a hundred, a transformer whose requests `dlt.defer`
hands to the pool of 32 threads, one plain `requests` session a thread, lists in runs kept as JSON rather than as tables
of their own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WORKERS = 32


def main(base_url: str, ids_file: str, folder: str) -> None:
    """Load the runs into a folder."""
    os.environ |= {
        "EXTRACT__WORKERS": str(_WORKERS),
        "EXTRACT__MAX_PARALLEL_ITEMS": str(4 * _WORKERS),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DLT_DATA_DIR": f"{folder}/dlt",
    }
    import dlt
    import requests

    sessions = threading.local()
    run_ids = Path(ids_file).read_text().split()

    @dlt.resource
    def ids() -> Iterator[list[str]]:
        for start in range(0, len(run_ids), 100):
            yield run_ids[start : start + 100]

    @dlt.transformer(data_from=ids, name="runs", write_disposition="append", max_table_nesting=1)
    def runs(page: list[str]) -> Iterator[Any]:
        @dlt.defer
        def ask(run_id: str) -> Any:
            if not hasattr(sessions, "session"):
                sessions.session = requests.Session()
                sessions.session.headers["Authorization"] = "Bearer key"
            answer = sessions.session.get(f"{base_url}/classify_runs/{run_id}", timeout=60)
            answer.raise_for_status()
            return answer.json()

        for run_id in page:
            yield ask(run_id)

    loading = dlt.pipeline(
        "runs", destination=dlt.destinations.filesystem(Path(folder, "files").as_uri()), dataset_name="extend",
        pipelines_dir=f"{folder}/state",
    )  # fmt: skip
    loading.run(runs, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main(*sys.argv[1:])
