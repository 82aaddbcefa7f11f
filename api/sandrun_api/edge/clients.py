"""Who a request comes from, under a key that means nothing after a restart."""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable

from starlette.requests import HTTPConnection

from sandrun_shared.settings import Network

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address

LOCAL = "local"  # a peer without an address
_KEY = secrets.token_bytes(32)
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{1,5})?|(?P<v4>[\d.]+):\d{1,5}")


def key_of(host: str) -> str:
    """The key of an address: an IPv4 address, an IPv6 /64, or the name of a local peer.

    Nothing is cached, so that no address outlives its request.
    """
    address = address_of(host)
    if address is None:
        network = host
    elif isinstance(address, IPv6):
        network = str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    else:
        network = str(address)
    return hashlib.blake2b(network.encode(errors="replace"), key=_KEY, digest_size=16).hexdigest()


def address_of(text: str) -> IPv4 | IPv6 | None:
    """The address in a text, an IPv4-mapped one (RFC 4291, 2.5.5.2) as IPv4; None if there is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6) else address


class Clients:
    """Finds the client behind a request; X-Forwarded-For counts only when a trusted proxy sent it."""

    def __init__(self, trusted_proxies: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted_proxies)

    def key(self, connection: HTTPConnection) -> str:
        """The key of the client."""
        peer = connection.client.host if connection.client else LOCAL
        if not self._trusted:
            return key_of(peer)
        return key_of(self.host(peer, connection.headers.getlist("x-forwarded-for")))

    def host(self, peer: str, forwarded: Iterable[str]) -> str:
        """The rightmost hop that is not a trusted proxy, from the peer and the header's values in order.

        A hop that is no address ends the walk: the client then counts as the proxy that wrote it.
        """
        hops = [hop for value in forwarded for hop in value.split(",")]
        host = peer
        while hops and self._trusts(host):
            hop = _without_port(hops.pop().strip())
            if address_of(hop) is None:
                break
            host = hop
        return host

    def _trusts(self, host: str) -> bool:
        address = address_of(host)
        return address is not None and any(address in network for network in self._trusted)


def _without_port(hop: str) -> str:
    match = _WITH_PORT.fullmatch(hop)
    return hop if match is None else match["v6"] or match["v4"] or ""


def client_of(connection: HTTPConnection) -> str:
    """The key of the client behind a request."""
    clients: Clients = connection.app.state.clients
    return clients.key(connection)
