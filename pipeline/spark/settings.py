"""What may be said to the format and the functions of `pipeline.spark`, and what it makes of one partition.

The organization's rate is shared by the partitions, whether or not all of them run at once: each asks at `qps` ÷
`partitions`, so that all together never exceed it, however many executors there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pipeline import defaults
from pipeline.config import Connection, read_connection, read_target
from pipeline.errors import UsageError
from pipeline.fetch import FetchOptions

PARTITIONS = 4
"""How many partitions there are where nobody says: as many should run at once, or a part of the rate is not used."""

_KEY_NAMES = frozenset({"api_key", "apikey", "key", "token", "secret", "extend_api_key"})
_KEY_VARIABLES = ("EXTEND_API_KEY", "EXTEND_API_KEY_FILE")
_NO_KEY_HERE = (
    "no key may be an option: Spark shows options in plans, in its web page and in its logs. Set EXTEND_API_KEY in the "
    "environment of the executors, or name with `key_file` a file that they can read"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkOptions:
    """How to ask from Spark, all partitions together: `qps` requests a second, `concurrency` at a time.

    `key_file` is read by the executors, where the key is looked for. Where nothing is said, the environment counts,
    as for the commands; of the executors' that is the key alone.
    """

    base_url: str | None = None
    region: str | None = None
    workspace: str | None = None
    key_file: str | None = None
    allow_http: bool = False
    qps: float = defaults.QPS
    concurrency: int = defaults.CONCURRENCY
    partitions: int = PARTITIONS
    consume_verify_results: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= 10_000:
            raise UsageError(f"partitions must be from 1 to 10000, not {self.partitions}")
        self.fetch_options()  # raises for a rate or a concurrency that cannot be

    def resolved(self, env: Mapping[str, str]) -> SparkOptions:
        """Return these options with the API's address and the workspace looked up, here and not by each executor."""
        base_url, workspace = read_target(
            base_url=self.base_url, region=self.region, workspace=self.workspace, allow_http=self.allow_http, env=env
        )
        return replace(self, base_url=base_url, workspace=workspace, region=None)

    def connection(self, env: Mapping[str, str]) -> Connection:
        """Return the way to the API, with the key that is to be found in an executor's environment."""
        return read_connection(
            base_url=self.base_url,
            region=self.region,
            workspace=self.workspace,
            key_file=self.key_file,
            allow_http=self.allow_http,
            env={name: env[name] for name in _KEY_VARIABLES if name in env},
        )

    def fetch_options(self, *, refresh: bool = False) -> FetchOptions:
        """Return how one partition asks: with its share."""
        return FetchOptions(
            qps=self.qps / self.partitions,
            concurrency=max(1, self.concurrency // self.partitions),
            refresh=refresh,
            consume_verify_results=self.consume_verify_results,
        )


def read_options(given: Mapping[str, Any], *others: str) -> tuple[SparkOptions, dict[str, str]]:
    """Return the options that are given as text or as they are, and apart from them those of other names.

    Names are those of `SparkOptions`; capitals and `_` make no difference, as Spark has it. Raises UsageError, which
    shows no value of a name that is not known: it may be a key.
    """
    known = {each.name: each for each in fields(SparkOptions)}
    plain = {_plain(name): name for name in (*known, *others)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name.lower() in _KEY_NAMES:
            raise UsageError(_NO_KEY_HERE)
        if _plain(name) not in plain:
            raise UsageError(f"no option {name[:40]!r} here; there are {', '.join(sorted(plain.values()))}")
        if value is not None:
            found[plain[_plain(name)]] = value
    apart = {name: str(found.pop(name)) for name in others if name in found}
    return SparkOptions(**{name: _value(name, value, known[name].default) for name, value in found.items()}), apart


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _value(name: str, value: Any, default: Any) -> Any:
    if not isinstance(value, str) or default is None:
        return value
    try:
        return as_flag(name, value) if isinstance(default, bool) else type(default)(value)
    except ValueError as error:
        raise UsageError(f"option {name}: {value[:40]!r} is no number") from error


def as_flag(name: str, value: str) -> bool:
    """Return what `true` or `false` means; raise UsageError for anything else."""
    if value.strip().lower() not in ("true", "false"):
        raise UsageError(f"option {name}: say true or false, not {value[:40]!r}")
    return value.strip().lower() == "true"
