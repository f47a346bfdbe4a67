"""The FinOps Foundation's own checker, `focus-validator`, on the dataset of a world, where a Python 3.12 is there.

It needs Python 3.12, so it gets an environment of its own, made once and kept in pytest's cache. It exits 0 whatever it
finds: its list is read. What it lets pass is checked in `test_export_focus.py`, everywhere.
"""

import os
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.export.focus import Terms, export_focus
from pipeline.lake import LakeFiles
from pipeline.sandbox.world import World
from tests.conftest import land

CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED NEGOTIATED_PRICING_SUPPORTED PUBLIC_PRICE_LIST_SUPPORTED USAGE_MEASUREMENT_SUPPORTED "
    "UNIT_PRICING_SUPPORTED SUB_ACCOUNT_SUPPORTED PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED "
    "VIRTUAL_CURRENCY_SUPPORTED TAGGING_SUPPORTED MULTIPLE_PRICING_CATEGORIES_SUPPORTED"
).split()
"""What of FOCUS's conditional requirements applies here; the others (regions, commitments, …) do not."""
KNOWN_TO_FAIL_ON_CORRECT_DATA = {
    # It wants InvoiceId both null and not null; it is null, since the API tells of no invoices.
    "InvoiceId-C-005-C",
    # FOCUS 1.2 allows a virtual currency ("Credits") here; the checker's pattern knows ISO 4217 alone.
    "PricingCurrency-C-003-M", "PricingCurrency-C-000-C",
}  # fmt: skip


def find_python_3_12() -> str | None:
    """Return a Python 3.12 that runs: on the path, or of pyenv, whose shim may be there without one behind it."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = [shutil.which("python3.12"), *map(str, sorted(pyenv.glob("versions/3.12*/bin/python3.12")))]
    for python in filter(None, found):
        asked = subprocess.run([python, "-c", "import sys, venv; print(sys.version_info[:2])"], capture_output=True,
                               text=True, check=False)  # fmt: skip
        if asked.stdout == "(3, 12)\n":
            return python
    return None


@pytest.fixture(scope="module")
def validator(pytestconfig: pytest.Config) -> Path:
    """The checker, run in a folder that holds a link to its own package, which it looks for there."""
    python = find_python_3_12()
    if python is None:
        pytest.skip("focus-validator needs Python 3.12, and there is none on this machine")
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("focus-validator")
    command = folder / "venv" / "bin" / "focus-validator"
    if not (folder / "made").exists():
        subprocess.run([python, "-m", "venv", "--clear", folder / "venv"], check=True)
        pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "focus-validator>=2.2.1,<3", "pyarrow<26"], check=True)
        (package,) = (folder / "venv").glob("lib/python3.12/site-packages/focus_validator")
        (folder / "focus_validator").unlink(missing_ok=True)
        (folder / "focus_validator").symlink_to(package)
        (folder / "made").touch()
    return command


def failed_rules(validator: Path, data: Path, *options: str) -> tuple[set[str], int]:
    """Return the rules that the checker says are broken, and how many hold."""
    command = [validator, "--data-file", data, "--validate-version", "1.2", "--block-download", *options]
    done = subprocess.run(command, cwd=validator.parents[2], capture_output=True, text=True, check=False)
    counted = re.search(r"Pass: (\d+) \| Fail: (\d+)", done.stdout + done.stderr)
    assert counted, done.stdout[-500:] + done.stderr[-2_000:]
    failed = set(re.findall(r"^❌ (\S+): FAIL", done.stdout + done.stderr, re.MULTILINE))
    return failed, int(counted[1])


@pytest.mark.soak
def test_the_foundations_checker_finds_nothing_but_what_it_gets_wrong(
    world: World, lake: LakeFiles, tmp_path: Path, validator: Path
) -> None:
    land(lake, *(world.detail(run_id) for run_id in world.run_ids()))
    terms = Terms(Decimal("0.01"), Decimal("0.0125"), "prepaid", "Acme")
    for path in (tmp_path / "focus.parquet", tmp_path / "focus.csv"):
        export_focus(lake.folder, path, terms)
        failed, passed = failed_rules(validator, path, "--applicability-criteria", ",".join(CRITERIA))
        assert failed <= KNOWN_TO_FAIL_ON_CORRECT_DATA | {"CostAndUsage-D-000-M", "CostAndUsage-D-002-M"}
        assert passed > 250


@pytest.mark.soak
def test_the_checker_finds_what_is_wrong(lake: LakeFiles, tmp_path: Path, validator: Path) -> None:
    path = tmp_path / "focus.csv"
    path.write_text("BilledCost,ChargeCategory\n,Surprise\n")
    failed, _passed = failed_rules(validator, path)
    assert {"BilledCost-C-003-M", "ChargeCategory-C-003-M"} <= failed
