"""Real services, one of each for all tests of a worker."""

from __future__ import annotations

import pytest

from tests.contract import azurite as azurite_service
from tests.contract import services
from tests.fakes import keyvault as fake_keyvault


@pytest.fixture(scope="session")
def bao():
    with services.bao() as running:
        yield running


@pytest.fixture(scope="session")
def moto():
    with services.moto() as url:
        yield url


@pytest.fixture(scope="session")
def postgres():
    with services.postgres() as running:
        yield running


@pytest.fixture(scope="session")
def redis():
    with services.redis() as running:
        yield running


@pytest.fixture(scope="session")
def azurite():
    with azurite_service.azurite() as running:
        yield running


@pytest.fixture(scope="session")
def keyvault(tmp_path_factory):
    with fake_keyvault.running(tmp_path_factory.mktemp("keyvault")) as running:
        yield running
