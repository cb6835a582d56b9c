"""Networks that this machine itself carries.

Before their bridge exists a packet to one would leave by the default route, and what answers there is not what the
runbook means.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from engine.core.services import NoAnswerError
from engine.errors import UsageError


class LocalNetworks:
    """Knows which addresses may be asked now. `networks` is interface -> networks in CIDR form, as in the inventory's
    `local_networks`; UsageError for what is not a network."""

    def __init__(self, networks: Mapping[str, Sequence[str]] | None = None) -> None:
        try:
            self._networks = {
                interface: [ip_network(network) for network in listed] for interface, listed in (networks or {}).items()
            }
        except ValueError as error:
            raise UsageError(f"local_networks: {error}") from error

    def require(self, host: str) -> None:
        """NoAnswerError when `host` is an address behind an interface that does not exist. A name is never refused."""
        try:
            address = ip_address(host)
        except ValueError:
            return
        for interface, networks in self._networks.items():
            if any(address in network for network in networks) and not _exists(interface):
                raise NoAnswerError(
                    f"{host} is behind interface {interface} of this machine, which does not exist yet", "unreachable"
                )


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True
