"""Programs beside Python that some tests need. `.ci/run` installs them all."""

from __future__ import annotations

import os
import shutil

import pytest


def needed_program(*names: str, to_install: str) -> str:
    """Return where the first of these is; without any, skip the test and say how to install it, but fail it in CI."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"no {names[0]} here, which this test needs: {to_install}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found
