"""Who a request comes from, under a key that means nothing after a restart."""

import functools
import hashlib
import ipaddress
import secrets

from starlette.requests import HTTPConnection

_SALT = secrets.token_bytes(32)


@functools.lru_cache(maxsize=4096)
def key_of(host: str) -> str:
    """The key of an address: an IPv4 address, an IPv6 /64, or the name of a local peer."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        network = host
    else:
        if isinstance(address, ipaddress.IPv6Address):
            network = str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
        else:
            network = str(address)
    return hashlib.blake2b(network.encode(), key=_SALT, digest_size=16).hexdigest()


def client_of(connection: HTTPConnection) -> str:
    """The key of the client behind a request."""
    return key_of(connection.client.host if connection.client else "local")
