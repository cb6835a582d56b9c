"""What several subjects share: a database that is slow to start."""

from __future__ import annotations

import pytest

from tests.contract.cluster import connect
from tests.contract.database_pod import running


@pytest.fixture(scope="session")
def database_pod():
    """Namespace of pod `database`."""
    with running(connect()) as namespace:
        yield namespace
