"""Who a request comes from, under a key that means nothing after a restart."""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from sandrun_api.edge.origins import ANY, Rules, names_of
from sandrun_shared.settings import Network, Settings, networks, words

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address

LOCAL = "local"  # a peer without an address
# What proxies and tunnels say of the client they pass on; so does whatever begins with x-forwarded-.
FORWARDING = frozenset(
    (
        "forwarded", "via", "x-real-ip", "x-client-ip", "client-ip", "x-cluster-client-ip",
        "x-original-forwarded-for", "x-envoy-external-address", "true-client-ip", "cf-connecting-ip",
        "fastly-client-ip", "x-azure-clientip", "x-original-url", "x-proxyuser-ip",
    )
)  # fmt: skip
_FORWARDED_PREFIX = "x-forwarded-"
_OWN_SITES = ("none", "same-origin", "same-site")  # of Sec-Fetch-Site (W3C, Fetch Metadata)
_KEY = secrets.token_bytes(32)
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{1,5})?|(?P<v4>[\d.]+):\d{1,5}")
_IN_SCOPE = "sandrun.client"  # where a request keeps its client's key, and only as long as it is served


class ClientKey(str):
    """A client's key; with its network's ("" without quotas of networks), and whether it has no quotas."""

    __slots__ = ("exempt", "network")
    exempt: bool
    network: str

    def __new__(cls, key: str, network: str = "", *, exempt: bool = False) -> "ClientKey":
        """The key as a string that knows more."""
        self = super().__new__(cls, key)
        self.network = network
        self.exempt = exempt
        return self


def is_exempt(client: str) -> bool:
    """Whether quotas do not hold for a client."""
    return isinstance(client, ClientKey) and client.exempt


def network_of(client: str) -> str:
    """The key of a client's network; "" if networks have no quotas."""
    return client.network if isinstance(client, ClientKey) else ""


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
    return _digest(network)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), key=_KEY, digest_size=16).hexdigest()


def address_of(text: str) -> IPv4 | IPv6 | None:
    """The address in a text, an IPv4-mapped one (RFC 4291, 2.5.5.2) as IPv4; None if there is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6) else address


def is_within(address: IPv4 | IPv6 | None, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    return address is not None and any(address in network for network in networks)


def is_forwarded(headers: Headers) -> bool:
    """Whether somebody on the way says that the request was passed on."""
    return any(name in FORWARDING or name.startswith(_FORWARDED_PREFIX) for name in headers)


def prefixes_of(text: str) -> tuple[int, int] | None:
    """The two lengths in `[quota] network_prefix`."""
    lengths = [int(word.removeprefix("/")) for word in words(text)]
    return (lengths[0], lengths[1]) if lengths else None


class Clients:
    """Finds the client behind a request; X-Forwarded-For counts only when a trusted proxy sent it.

    Clients of exempt networks have no quotas; with exempt_loopback neither have requests of this machine.
    Such a request comes directly, or through a trusted proxy that names its client, and from no foreign page.
    names are those of this server. prefixes are the lengths of the networks, of IPv4 and IPv6, that have
    quotas too.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[Network] = (),
        *,
        exempt: Iterable[Network] = (),
        exempt_loopback: bool = False,
        names: Iterable[str] = (),
        prefixes: tuple[int, int] | None = None,
    ) -> None:
        self._trusted = tuple(trusted_proxies)
        self._exempt = tuple(exempt)
        self._exempt_loopback = exempt_loopback
        self._own_pages = Rules(frozenset(names) - {ANY}, frozenset())
        self._prefixes = prefixes

    @classmethod
    def of(cls, settings: Settings, *, exempt_loopback: bool = False) -> "Clients":
        """By the settings. Raises SettingsError."""
        api, quota = settings.api, settings.quota
        return cls(
            networks(api.trusted_proxies, "api.trusted_proxies"),
            exempt=networks(quota.exempt_networks, "quota.exempt_networks"),
            exempt_loopback=exempt_loopback,
            names=names_of(api),
            prefixes=prefixes_of(quota.network_prefix),
        )

    def key(self, connection: HTTPConnection) -> ClientKey:
        """The key of the client."""
        known = connection.scope.get(_IN_SCOPE)
        if isinstance(known, ClientKey):
            return known
        host = self.host_of(connection)
        exempt = self._has_no_quotas(connection, host)
        # A separate account: a request from the same address that is not exempt has quotas.
        key = ClientKey(
            _digest(f"exempt {key_of(host)}") if exempt else key_of(host), self._network(host), exempt=exempt
        )
        connection.scope[_IN_SCOPE] = key
        return key

    def host_of(self, connection: HTTPConnection) -> str:
        """The address of the client, as text."""
        peer = connection.client.host if connection.client else LOCAL
        return self.host(peer, connection.headers.getlist("x-forwarded-for")) if self._trusted else peer

    def is_hidden(self, connection: HTTPConnection, host: str) -> bool:
        """Whether somebody else than the client of this address, a proxy's perhaps, may have asked."""
        return connection.client is None or (
            host == connection.client.host and is_forwarded(connection.headers)
        )

    def host(self, peer: str, forwarded: Iterable[str]) -> str:
        """The rightmost hop that is not a trusted proxy, from the peer and the header's values in order.

        A hop that is no address ends the walk: the client then counts as the proxy that wrote it.
        """
        hops = [hop for value in forwarded for hop in value.split(",")]
        host = peer
        while hops and is_within(address_of(host), self._trusted):
            hop = _without_port(hops.pop().strip())
            if address_of(hop) is None:
                break
            host = hop
        return host

    def _has_no_quotas(self, connection: HTTPConnection, host: str) -> bool:
        if not self._exempt and not self._exempt_loopback:
            return False
        address = address_of(host)
        if address is None or self.is_hidden(connection, host):
            return False
        is_ours = self._exempt_loopback and address.is_loopback
        if not is_ours and not is_within(address, self._exempt):
            return False
        return not self._is_of_foreign_page(connection.headers, any_name=not is_ours)

    def _is_of_foreign_page(self, headers: Headers, *, any_name: bool) -> bool:
        """Whether a browser may have sent the request for a page of another site.

        A page whose own name was made to lead here shows in Host; of what names no page, any_name lets pass
        names that are not known here.
        """
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return True
        if "origin" not in headers and any_name:
            return False
        return self._own_pages.refusal(headers) is not None

    def _network(self, host: str) -> str:
        address = address_of(host)
        if self._prefixes is None or address is None:
            return ""
        length = self._prefixes[isinstance(address, IPv6)]
        return _digest(f"network {ipaddress.ip_network((address.packed, length), strict=False)}")


def _without_port(hop: str) -> str:
    match = _WITH_PORT.fullmatch(hop)
    return hop if match is None else match["v6"] or match["v4"] or ""


def client_of(connection: HTTPConnection) -> ClientKey:
    """The key of the client behind a request."""
    clients: Clients = connection.app.state.clients
    return clients.key(connection)
