"""What a test needs beside Python. A missing part skips it, unless RUNBOOK_REQUIRE names the part: then it fails.

The parts are `root`, `cluster`, `openbao`, `moto`, `azurite`, `postgres`, `redis` and `ssh-keygen`; CI names
those it has for sure.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(part: str, why: str) -> NoReturn:
    """End the test: a part is not here."""
    if part in os.environ.get("RUNBOOK_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"{part} is required: {why}")
    pytest.skip(why)
