"""What both clients are made of: where the server is, and how patient and trusting they are."""

import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from sandrun_client.errors import SandrunError

DEFAULT_URL = "http://localhost:8443"
URL_VARIABLE = "SANDRUN_URL"
USER_AGENT = "sandrun-client"


def base_url(url: str | None) -> str:
    """The address: as given, or SANDRUN_URL, or the default. Raises SandrunError for what is none."""
    text = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SandrunError(f"{text!r} is not the address of a server, like {DEFAULT_URL}.")
    return text.rstrip("/")


def http_options(
    url: str, timeout: float, verify: ssl.SSLContext | bool, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Keywords of httpx.Client and httpx.AsyncClient alike."""
    return {
        "base_url": url,
        "timeout": timeout,
        "verify": verify,
        "headers": {"User-Agent": USER_AGENT, **headers},
        # A proxy of the environment is for the world outside.
        "trust_env": not is_local(httpx.URL(url).host),
    }


def is_local(host: str) -> bool:
    """Whether a host of an address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
