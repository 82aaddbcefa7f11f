"""Who is served at all: networks that the operator allows and denies, and clients denied by their key."""

import ipaddress
import re

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from sandrun_api.edge.clients import Clients, address_of, is_within
from sandrun_api.edge.reject import refuse
from sandrun_api.errors import ApiError
from sandrun_shared.settings import Network, Settings, networks

MOST_DENIED = 1000  # while the server runs, besides the settings
# What this machine itself asks, no matter who else is served: `sandrun up` waits for the first.
OWN_PATHS = frozenset({"/health", "/metrics"})
_KEY = re.compile("[0-9a-f]{32}")


class Denied(ValueError):
    """What cannot be denied; the text says why."""


class Access:
    """The rules; those added while the server runs are forgotten with it, as the keys are."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        """Raises SettingsError."""
        self._allow = networks(settings.access.allow_networks, "access.allow_networks")
        self._deny = networks(settings.access.deny_networks, "access.deny_networks")
        self._clients = clients
        contact = settings.api.contact
        whom = f" Contact: {contact}" if contact else ""
        self._reason = f"This server does not serve your address.{whom}"
        self._denied_networks: set[Network] = set()
        self._denied_keys: set[str] = set()

    @property
    def denied(self) -> list[str]:
        """What was denied while the server runs."""
        return sorted((*map(str, self._denied_networks), *self._denied_keys))

    def deny(self, what: str) -> None:
        """Deny a network (CIDR), or a client or network by its key, until the server ends. Raises Denied."""
        if len(self._denied_networks) + len(self._denied_keys) >= MOST_DENIED:
            raise Denied(f"{MOST_DENIED} are denied already; put networks into [access] deny_networks")
        if _KEY.fullmatch(what):
            self._denied_keys.add(what)
            return
        try:
            self._denied_networks.add(ipaddress.ip_network(what))
        except ValueError:
            raise Denied("neither a network, as 192.0.2.0/24, nor the 32 digits of a client") from None

    def refusal(self, connection: HTTPConnection) -> ApiError | None:
        """Why a request is not served."""
        if not (self._allow or self._deny or self._denied_networks or self._denied_keys):
            return None
        host = self._clients.host_of(connection)
        address = address_of(host)
        is_own = address is not None and address.is_loopback and not self._clients.is_hidden(connection, host)
        if is_own and connection.scope["path"] in OWN_PATHS:
            return None
        key = self._clients.key(connection)
        is_denied = (
            (self._allow and not is_within(address, self._allow))
            or is_within(address, self._deny)
            or is_within(address, self._denied_networks)
            or not self._denied_keys.isdisjoint((key, key.network))
        )
        return ApiError(403, self._reason, cause="denied") if is_denied else None


class AccessCheck:
    """Refuses requests, WebSocket handshakes among them, of clients that are not served. Pure ASGI."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        error = self._access.refusal(HTTPConnection(scope)) if "headers" in scope else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await refuse(error, scope, receive, send)
