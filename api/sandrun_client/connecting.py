"""What both clients are made of: where the server is, and how patient and trusting they are."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandrun_client.errors import SandrunError

if TYPE_CHECKING:
    import ssl

DEFAULT_URL = "http://localhost:8443"
URL_VARIABLE = "SANDRUN_URL"
USER_AGENT = "sandrun-client"


def base_url(url: str | None) -> str:
    """The address: as given, or SANDRUN_URL, or the default. Raises SandrunError for a malformed one."""
    text = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        parts = urlsplit(text)
        host = parts.hostname if parts.port is None or parts.port > 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise SandrunError(f"{text!r} is not the address of a server, like {DEFAULT_URL}.")
    return text.rstrip("/")


def http_options(
    url: str, timeout: float, verify: "ssl.SSLContext | bool", headers: Mapping[str, str]
) -> dict[str, Any]:
    """Keywords of httpx.Client and httpx.AsyncClient alike."""
    return {
        "base_url": url,
        "timeout": timeout,
        "verify": verify,
        "headers": {"User-Agent": USER_AGENT, **headers},
        # A proxy of the environment is for the world outside.
        "trust_env": not is_local(urlsplit(url).hostname or ""),
    }


def is_plain(url: str) -> bool:
    """Whether an address is plain HTTP to this machine, which needs neither TLS nor proxies."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.username is None and is_local(parts.hostname or "")


def is_local(host: str) -> bool:
    """Whether a host of an address is this machine's loopback."""
    if host == "localhost":
        return True
    import ipaddress  # noqa: PLC0415 - slow to load

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
