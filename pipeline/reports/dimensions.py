"""What `--by` may name: the dimensions of each report's table, as SQL of our own; what a user types is never pasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pipeline.errors import UsageError

_METADATA = "metadata."

By = Sequence[str] | str
DAY_AND_KIND = ("day", "kind")
KIND_AND_REASON = ("kind", "reason")
"""What credits, and failures, are told by where nothing is said."""

TIMES = ("day", "week", "month")
"""The dimensions of time, each a DATE: the day itself, the Monday of its week, the first of its month."""


def _times(column: str) -> dict[str, str]:
    return {
        "day": column,
        "week": f"CAST(date_trunc('week', {column}) AS DATE)",
        "month": f"CAST(date_trunc('month', {column}) AS DATE)",
    }


_OF_BOTH = {
    "processor": "coalesce(processor_name, processor_id)",
    "processor_id": "processor_id",
    "version": "processor_version",
    "workspace": "workspace_id",
    "file_type": "file_type",
    "source": "source",
}

OF_CREDITS: Mapping[str, str] = {
    **_times("charged_day"),
    "kind": "resource_kind",
    **_OF_BOTH,
    "product": "product",
    "basis": "basis",
    "all": "'all'",
}
"""Of the lines of credits. `charged_day` is `charged_on`, in a comparison moved to where it is compared."""

OF_RUNS: Mapping[str, str] = {
    **_times("created_on"),
    "kind": "kind",
    **_OF_BOTH,
    "reason": "failure_reason",
    "status": "status",
    "all": "'all'",
}
"""Of the runs. `created_on` is the UTC day of creation."""


class Dimensions(NamedTuple):
    """Chosen dimensions: their names, the columns `by_<name>` of SQL, and the parameters that these need."""

    names: tuple[str, ...]
    columns: Sequence[str] = ()
    params: Mapping[str, Any] = MappingProxyType({})


def choose(by: Sequence[str] | str, known: Mapping[str, str]) -> Dimensions:
    """Return the dimensions of these names; `file-type` is `file_type`. Raise UsageError for one that is not known.

    `metadata.KEY` is the run's metadata under that key, as text; the key is a parameter.
    """
    asked = [by] if isinstance(by, str) else list(by)
    names = tuple(name if name.startswith(_METADATA) else name.strip().replace("-", "_") for name in asked)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--by {','.join(asked)}: name at least one dimension, and each once")
    columns: list[str] = []
    params: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        if name.startswith(_METADATA):
            key = name.removeprefix(_METADATA)
            params[f"key_{number}"] = _pointer(name, key)
            expression = f"json_extract_string(metadata, $key_{number})"
        elif name in known:
            expression = known[name]
        else:
            raise UsageError(f"--by {name}: not a dimension here; there are {', '.join(known)} and metadata.KEY")
        columns.append(f"{expression} AS {quoted(f'by_{name}')}")
    return Dimensions(names, columns, params)


def quoted(name: str) -> str:
    """Return a name as SQL writes it where it may hold anything."""
    return '"' + name.replace('"', '""') + '"'


def _pointer(name: str, key: str) -> str:
    """Return the JSON pointer (RFC 6901) to a key, in which every character but `~` and `/` stands for itself."""
    if not key or not key.isprintable():
        raise UsageError(f"--by {name!r}: write a key of the metadata behind the point, as in metadata.team")
    return "/" + key.replace("~", "~0").replace("/", "~1")
