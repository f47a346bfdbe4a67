"""The README says what is so: its generated parts, its examples, its test command."""

import re
from pathlib import Path

import pytest

from tests import readme


@pytest.mark.long
def test_what_the_readme_takes_from_the_code_and_its_examples_are_as_they_would_be_made_now(tmp_path: Path) -> None:
    text = readme.README.read_text()
    assert text == readme.rewritten(text, tmp_path), "run: python -m tests.readme"


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^pip install .* && pytest$", readme.README.read_text(), re.MULTILINE)
    assert f'test_command="{command}"' in (readme.ROOT / ".ci" / "run").read_text()


def test_nothing_names_a_registry_or_a_lock_file() -> None:
    names = {path.name for path in readme.ROOT.iterdir()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "requirements.txt"}
