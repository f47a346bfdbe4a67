"""What the package stands on: few packages, named here one by one, and none of a version with a known hole.

This is what serves without a network; `pip-audit` asks the advisories' database (see the README).
"""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
FLOORS = dict(re.fullmatch(r"([a-z-]+)>=([0-9.]+)", each).groups() for each in PROJECT["dependencies"])

MENDED = {
    "filelock": ("3.20.1", "CVE-2025-68146: a link takes the place of the lock's file"),
    "pyarrow": ("14.0.1", "CVE-2023-47248: reading a file runs code in it"),
    "starlette": ("0.49.1", "CVE-2025-62727: one Range header keeps the server busy"),
}
"""The first versions without holes that we know of, as of 2026-01."""


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def test_the_package_stands_on_these_and_no_others() -> None:
    assert sorted(FLOORS) == [
        "duckdb", "filelock", "httptools", "httpx", "msgspec", "numpy", "pandas",
        "pyarrow", "rich", "starlette", "tzdata", "uvicorn", "zstandard",
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(MENDED))
def test_no_version_with_a_known_hole_may_be_installed(name: str) -> None:
    first, why = MENDED[name]
    assert numbers(FLOORS[name]) >= numbers(first), why
    assert numbers(version(name)) >= numbers(first), why


def test_duckdb_is_used_as_it_is_where_its_core_is_elsewhere() -> None:
    """The core is a module that its makers name by an underscore: a version may have it under another name."""
    code = (
        "import sys, duckdb; sys.modules['_duckdb'] = None; from pipeline import duckdb_core\n"
        "assert duckdb_core.connect is duckdb.connect and duckdb_core.Error is duckdb.Error\n"
        "print(*duckdb_core.connect().execute('SELECT 42').fetchone())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("42\n", "")
