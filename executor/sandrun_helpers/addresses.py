"""The addresses that the package proxy may connect to: public ones, and none of this machine."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

PORT = 443
RESOLVE_SECONDS = 10.0
# Not public, or another notation of an address that is not, where some Python's `is_global` misses it.
_REFUSED = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24"
        " 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24"
        " 224.0.0.0/3 168.63.129.16/32"  # the last one: a cloud's metadata service on a public address
        " ::/3 2001::/23 2001:db8::/32 2002::/16 3fff::/20 4000::/2 8000::/1"
    ).split()
]

# Refused whatever an operator allows: metadata services, unspecified, link-local and multicast ones.
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8 169.254.0.0/16 168.63.129.16/32 224.0.0.0/3 ::ffff:0:0/96 fe80::/10 ff00::/8"
    ).split()
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """No address of a name may be connected to; the text says why."""


def is_public(address: Address) -> bool:
    """Whether an address is public: not private, link-local, shared or mapped."""
    if _within(address, _REFUSED):
        return False
    return address.is_global and not address.is_multicast


def is_ours(address: Address) -> bool:
    """Whether this machine has the address, since packets to it would then also come from it (udp(7))."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), PORT))  # sends nothing
        except OSError:
            return False
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address


def may_reach(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether the proxy may connect to an address: a public one, or one in the operator's own networks."""
    if _within(address, networks):
        return not _within(address, _NEVER)
    return is_public(address) and not is_ours(address)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


async def resolve(host: str, networks: tuple[Network, ...] = ()) -> list[Address]:
    """Look up a host once; returns the addresses that may be connected to.

    Raises AddressRefused if it has none, OSError and TimeoutError if the lookup fails.
    """
    async with asyncio.timeout(RESOLVE_SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    allowed = [address for address in addresses if may_reach(address, networks)]
    if not allowed:
        raise AddressRefused("its address is neither public nor in a network of [executor] package_networks")
    return allowed
