"""DNS by dnspython."""

from __future__ import annotations

from collections.abc import Sequence

from engine.adapters.local_networks import LocalNetworks
from engine.core.action import Deadline
from engine.core.services import NoAnswerError
from engine.errors import UsageError

_LONGEST = 5.0  # seconds for one question, repeats included


class DnsResolver:
    """Asks one named server, or the system's (port NameResolver)."""

    def __init__(self, networks: LocalNetworks | None = None) -> None:
        self._networks = networks or LocalNetworks()

    def resolve(self, name: str, kind: str, *, server: str = "", deadline: Deadline) -> Sequence[str]:
        """See NameResolver. `server` is an address, or address:port."""
        import dns.exception
        import dns.rdatatype
        import dns.resolver

        asked = f"{kind} {name}{' at ' + server if server else ''}"
        deadline.check(f"resolving {asked}")
        try:
            resolver = dns.resolver.Resolver(configure=not server)
            if server:
                host, port = _address(server)
                self._networks.require(host)
                resolver.nameservers, resolver.port = [host], port
            answer = resolver.resolve(name, kind, lifetime=min(_LONGEST, deadline.remaining()), search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.resolver.LifetimeTimeout as error:
            raise NoAnswerError(f"DNS {asked}: no answer in time", "timeout") from error
        except dns.resolver.NoNameservers as error:
            raise NoAnswerError(f"DNS {asked}: the server answered with a failure or refused", "refused") from error
        except (dns.rdatatype.UnknownRdatatype, dns.exception.SyntaxError, ValueError) as error:
            raise UsageError(f"DNS {asked}: {error}") from error
        except (dns.exception.DNSException, OSError) as error:
            raise NoAnswerError(f"DNS {asked}: {error}", "unreachable") from error
        return tuple(sorted(record.to_text() for record in answer))


def _address(server: str) -> tuple[str, int]:
    """`10.96.0.10`, `10.96.0.10:5353`, `fd00::a`."""
    if server.count(":") == 1:
        host, _, port = server.partition(":")
        return host, int(port)
    return server, 53
