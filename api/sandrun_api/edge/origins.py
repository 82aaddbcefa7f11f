"""Which names a server answers to and which pages of a browser may use it (RFC 6454; RFC 9110, 7.4).

A server on loopback is within reach of every page that a browser on the same machine has open: of its scripts
(`Origin`), and of pages whose own name was made to lead to loopback (DNS rebinding), which `Host` shows.
"""

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from sandrun_api.edge.reject import refuse
from sandrun_api.errors import ApiError
from sandrun_shared.paths import shown
from sandrun_shared.settings import Api, SettingsError, words
from sandrun_shared.tls import is_personal

ANY = "*"
OPAQUE = "null"  # of files, and of frames in a sandbox
PRIVATE_PATHS = frozenset(
    {"/metrics"}
)  # what no page of another origin may read, wherever the server listens

_NAME = re.compile(r"\[[0-9a-f:.]+\]|[^\s/:?#@\[\]*]+")
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>{_NAME.pattern})(?::(?P<port>\d{{1,5}}))?")
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Rules:
    """Names of the server in lower case, and origins; None where any will do."""

    hosts: frozenset[str] | None
    origins: frozenset[str] | None

    @classmethod
    def of(cls, api: Api) -> "Rules":
        """The rules of the settings. Raises SettingsError."""
        hosts = names_of(api)
        origins = frozenset(_items(api.allowed_origins, "api.allowed_origins", _ORIGIN))
        # A proxy, or the network, leads to other names than those of loopback.
        by_default = is_personal(api)
        return cls(
            hosts if (hosts or by_default) and ANY not in hosts else None,
            origins if (origins or by_default) and ANY not in origins else None,
        )

    def refusal(self, headers: Headers) -> ApiError | None:
        """Why a request is not served."""
        host, origin = headers.get("host"), headers.get("origin")
        # Only a client that is no browser leaves Host out (HTTP/1.0).
        if self.hosts is not None and host and not self._is_ours(_name_of(host)):
            return ApiError(
                421,
                f"This server does not answer to the name '{shown(_name_of(host))}', which any web page could"
                " have made up. Use 'localhost' or an address; or the operator adds the name to [api]"
                " allowed_hosts, or sets behind_proxy if a proxy passes requests on.",
                cause="host",
            )
        if self.origins is not None and origin is not None and not self._may(origin.lower(), host or ""):
            return ApiError(
                403,
                f"Pages of the origin '{shown(origin)}' may not use this server. The operator can add it to"
                " [api] allowed_origins.",
                cause="origin",
            )
        return None

    def _is_ours(self, name: str) -> bool:
        # An address is what the browser connected to: no page can have made it up.
        return is_local_name(name) or _is_address(name) or name in (self.hosts or ())

    def _may(self, origin: str, host: str) -> bool:
        if origin in (self.origins or ()):
            return True
        match = _ORIGIN.fullmatch(origin)
        if match is None or match["scheme"] not in _PORTS:
            return False
        # A page of loopback, or our own.
        port = match["port"] or _PORTS[match["scheme"]]
        return is_local_name(match["host"]) or f"{match['host']}:{port}" == _with_port(host, match["scheme"])


def names_of(api: Api) -> frozenset[str]:
    """The names in `allowed_hosts`, in lower case. Raises SettingsError."""
    return frozenset(_items(api.allowed_hosts, "api.allowed_hosts", _NAME))


def is_name_here(host: str, api: Api) -> bool:
    """Whether a Host header field is one that no web page can have made up."""
    names = names_of(api)
    return ANY in names or Rules(names, None).refusal(Headers({"host": host})) is None


def _items(text: str, setting: str, pattern: re.Pattern[str]) -> list[str]:
    items = [item.lower() for item in words(text)]
    for item in items:
        if item != ANY and not (pattern is _ORIGIN and item == OPAQUE) and not pattern.fullmatch(item):
            what = "scheme://host, scheme://host:port, null or *" if pattern is _ORIGIN else "a name or *"
            raise SettingsError(f"{setting}: {item!r} is not {what}")
    return items


def is_local_name(name: str) -> bool:
    """Whether a host, in lower case, without a port, is loopback by name (RFC 6761, 6.3) or address."""
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """The host of a Host header field, without its port, in lower case."""
    return re.sub(r":\d*\Z", "", host.strip().lower())


def _with_port(host: str, scheme: str) -> str:
    host = host.strip().lower()
    return host if re.search(r":\d+\Z", host) else f"{host.removesuffix(':')}:{_PORTS[scheme]}"


class OriginCheck:
    """Refuses requests, WebSocket handshakes among them, that the rules do not allow. Pure ASGI."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        error = self._rules.refusal(Headers(scope=scope)) if "headers" in scope else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await refuse(error, scope, receive, send)


class Cors(CORSMiddleware):
    """CORS for everything but what is nobody's but the operator's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] in PRIVATE_PATHS:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
