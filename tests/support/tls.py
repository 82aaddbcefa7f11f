"""Certificates for loopback, made during the test."""

import contextlib
import ssl
import subprocess
from pathlib import Path

from sandrun_shared.settings import Api


def make(folder: Path) -> Api:
    """Settings with a new certificate and its key, which only the owner can read."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=30
    )
    key.chmod(0o600)
    return Api(cert=str(cert), key=str(key))


def trusting(api: Api) -> ssl.SSLContext:
    """Make a client's context that trusts it."""
    return ssl.create_default_context(cafile=api.cert)


def greeting(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """Make a ClientHello of the standard library's client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
