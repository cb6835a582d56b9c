"""An address behind a bridge that does not exist yet is not asked: the packet would leave the machine."""

from __future__ import annotations

import pytest

from engine.adapters.dns import DnsResolver
from engine.adapters.http import Requests
from engine.adapters.local_networks import LocalNetworks
from engine.adapters.network import Sockets
from engine.adapters.s3 import S3
from engine.core.action import Deadline
from engine.core.redaction import Redactor, Secret
from engine.core.services import NoAnswerError
from engine.errors import NotYetError, UsageError
from tests.contract.servers import web

ABSENT = {"nosuchbridge0": ["10.255.0.0/24", "fd00:255::/64"]}


@pytest.mark.parametrize("host", ["10.255.0.1", "fd00:255::1"])
def test_an_address_behind_an_absent_interface_is_not_asked(host: str) -> None:
    with pytest.raises(NoAnswerError, match="behind interface nosuchbridge0") as caught:
        LocalNetworks(ABSENT).require(host)
    assert caught.value.cause == "unreachable"


@pytest.mark.parametrize("host", ["10.254.0.1", "127.0.0.1", "storage.example.com", ""])
def test_other_hosts_may_be_asked(host: str) -> None:
    LocalNetworks(ABSENT).require(host)


def test_an_address_behind_an_interface_that_is_there_may_be_asked() -> None:
    LocalNetworks({"lo": ["127.0.0.0/8"]}).require("127.0.0.1")


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(UsageError, match=r"local_networks: .*10\.0\.0\.1/8"):
        LocalNetworks({"lo": ["10.0.0.1/8"]})


def test_no_adapter_sends_a_packet_there() -> None:
    networks = LocalNetworks({"nosuchbridge0": ["127.0.0.0/8"]})
    with web() as server:
        url = f"http://127.0.0.1:{server.port}"
        s3 = S3(url, "us-east-1", ("a", Secret("secret-key")), Redactor(), networks=networks)
        with pytest.raises(NotYetError, match="behind interface nosuchbridge0"):
            s3.bucket("backups")
        with pytest.raises(NoAnswerError, match="behind interface nosuchbridge0"):
            Requests(networks).request("GET", url, deadline=Deadline(5))
        with pytest.raises(NoAnswerError, match="behind interface nosuchbridge0"):
            Sockets(networks).connect("127.0.0.1", server.port, deadline=Deadline(5))
        with pytest.raises(NoAnswerError, match="behind interface nosuchbridge0"):
            DnsResolver(networks).resolve("a.example", "A", server="127.0.0.1", deadline=Deadline(5))
        assert server.seen == []


def test_what_answers_and_does_not_speak_s3_is_no_store_yet() -> None:
    with web() as server:
        server.answers["/backups"] = (404, "")
        s3 = S3(f"http://127.0.0.1:{server.port}", "us-east-1", ("a", Secret("secret-key")), Redactor())
        with pytest.raises(NotYetError, match="does not speak S3"):
            s3.bucket("backups")
