"""A platform of many organizations in one process: the short form of `python -m tests.platform_of_organizations`."""

from __future__ import annotations

from pathlib import Path

from tests.platform_of_organizations import pull


def test_organizations_pulled_at_once_keep_to_a_limit_each_and_have_their_runs_once(tmp_path: Path) -> None:
    # Were they one organization to the server, 80 requests a second would meet its limit of 10.
    found = pull(8, 12, 10.0, tmp_path)  # raises where a lake has not each of its runs once
    assert (found["runs"], found["answered"]) == (96, 96)
    assert found["refused_429"] <= 1  # about 1 %
