"""Exposure: any address other than loopback needs TLS or a proxy in front."""

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from sandrun_shared import memfds
from sandrun_shared.credentials import locate
from sandrun_shared.settings import Api, SettingsError


def check(api: Api) -> None:
    """Raise SettingsError for an address that these settings must not expose."""
    if bool(api.cert) != bool(api.key):
        missing, given = ("key", "cert") if api.cert else ("cert", "key")
        raise SettingsError(f"api.{given} is set without api.{missing}: TLS needs both")
    if api.cert or api.behind_proxy or is_loopback(api.host):
        return
    raise SettingsError(
        f"api.host {api.host or '(every address)'} is not loopback, and plain HTTP would show what clients "
        "send to anybody on the way: give a certificate (--cert and --key), or --behind-proxy if a proxy "
        "in front speaks TLS"
    )


def is_loopback(host: str) -> bool:
    """Whether every address of the host is loopback; the empty host means all addresses."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def is_personal(api: Api) -> bool:
    """Whether nothing but this machine can reach the server, and no proxy is known to be in front."""
    return is_loopback(api.host) and not api.behind_proxy and not api.trusted_proxies.strip()


def tls_context(api: Api, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """Make a context for TLS 1.2 and newer, None without files. Raises SettingsError for unusable files."""
    if not api.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation (TLS 1.2 only) lets a client make the server work.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    cert, key = locate(api.cert, environ), locate(api.key, environ)
    for name, path in (("cert", cert), ("key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise SettingsError(
                f"api.{name}: user {os.geteuid()} cannot read {path}: {error.strerror}"
            ) from None
    _load(context, cert, key, api)
    return context


def renew(context: ssl.SSLContext, api: Api) -> None:
    """Make new connections use the files as they are now.

    Raises SettingsError for unusable files and leaves the context unchanged.
    """
    with contextlib.ExitStack() as undo:
        # Copies, so that what was checked is used even if the files change meanwhile.
        cert, key = (Path(f"/dev/fd/{number}") for number in hand_over(api, undo).values())
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key, api)
        _load(context, cert, key, api)


def _load(context: ssl.SSLContext, cert: Path, key: Path, api: Api) -> None:
    try:
        # An encrypted key must not make OpenSSL prompt at the terminal.
        context.load_cert_chain(cert, key, password=b"")
    except (ssl.SSLError, OSError, ValueError):
        raise SettingsError(
            f"api.cert and api.key: {api.cert} and {api.key} are no certificate and its key"
        ) from None


def hand_over(api: Api, undo: contextlib.ExitStack) -> dict[str, int]:
    """Copy certificate and key to memfds, by setting, for a child that may not read the files.

    The child opens `/dev/fd/N`. Raises SettingsError; the descriptors are closed by `undo`.
    """
    descriptors: dict[str, int] = {}
    for name in ("cert", "key") if api.cert else ():
        descriptors[name] = memfds.create(name)
        undo.callback(os.close, descriptors[name])
    copy(api, descriptors)
    return descriptors


def copy(api: Api, descriptors: Mapping[str, int]) -> None:
    """Copy the files as they are now to the memfds of hand_over. Raises SettingsError."""
    for name, descriptor in descriptors.items():
        path = locate(getattr(api, name))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"api.{name}: cannot read {path}: {error.strerror}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def stamps(api: Api) -> list[tuple[int, int, int]] | None:
    """Return a value that changes when the files are replaced or rewritten; None while one is missing."""
    if not api.cert:
        return None
    try:
        found = [os.stat(locate(getattr(api, name))) for name in ("cert", "key")]
    except OSError:
        return None
    return [(status.st_ino, status.st_mtime_ns, status.st_size) for status in found]
