"""Where your Extend credits go, and what fails, and why.

from pipeline import Lake, fetch_runs

fetch_runs(["clr_…", "exr_…"])          # the key comes from EXTEND_API_KEY
Lake("data/lake").credits().df()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Lake", "LoadResult", "PipelineError", "fetch_runs"]

if TYPE_CHECKING:
    from pipeline.catalog import Lake
    from pipeline.errors import PipelineError
    from pipeline.fetch import fetch_runs
    from pipeline.loads import LoadResult

_HOMES = {
    "Lake": "pipeline.catalog",
    "LoadResult": "pipeline.loads",
    "PipelineError": "pipeline.errors",
    "fetch_runs": "pipeline.fetch",
}


def __getattr__(name: str) -> object:
    """Import what is asked for only now: `pipeline --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
