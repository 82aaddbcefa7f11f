"""What settings may expose, and which files make TLS."""

import contextlib
import os
import ssl
from pathlib import Path

import pytest

from sandrun_shared import tls as exposure
from sandrun_shared.settings import Api, SettingsError
from support import tls


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return tls.make(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    exposure.check(Api(host=host))


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "no.such.host.invalid"])
def test_plain_http_is_not_exposed(host: str) -> None:
    with pytest.raises(SettingsError, match="--behind-proxy"):
        exposure.check(Api(host=host))
    exposure.check(Api(host=host, behind_proxy=True))
    exposure.check(Api(host=host, cert="c", key="k"))


@pytest.mark.parametrize(("cert", "key"), [("c", ""), ("", "k")])
def test_half_of_tls_is_none(cert: str, key: str) -> None:
    with pytest.raises(SettingsError, match="needs both"):
        exposure.check(Api(cert=cert, key=key))


def test_the_context_is_strict(secure: Api) -> None:
    context = exposure.tls_context(secure)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert {cipher["name"].split("-")[0] for cipher in context.get_ciphers()} <= {
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_128_GCM_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        "ECDHE",
    }
    assert exposure.tls_context(Api()) is None


def test_files_of_no_use_are_named(secure: Api, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(SettingsError, match=r"api\.cert: .*missing\.pem"):
        exposure.tls_context(Api(cert=missing, key=secure.key))
    with pytest.raises(SettingsError, match=r"api\.key: .*missing\.pem"):
        exposure.tls_context(Api(cert=secure.cert, key=missing))
    other = tmp_path / "other"
    other.mkdir()
    for key in (tls.make(other).key, secure.cert, os.devnull):
        with pytest.raises(SettingsError, match="no certificate and its key"):
            exposure.tls_context(Api(cert=secure.cert, key=key))


def test_a_name_is_a_credential_of_systemd(secure: Api) -> None:
    folder = str(Path(secure.cert).parent)
    api = Api(cert="cert.pem", key="key.pem")
    assert exposure.tls_context(api, {"CREDENTIALS_DIRECTORY": folder}) is not None
    with pytest.raises(SettingsError, match="credential"):
        exposure.tls_context(api, {})


def test_copies_for_a_child(secure: Api) -> None:
    with contextlib.ExitStack() as undo:
        descriptors = exposure.hand_over(secure, undo)
        paths = {name: f"/dev/fd/{number}" for name, number in descriptors.items()}
        assert exposure.tls_context(Api(**paths)) is not None
        for name, path in paths.items():
            assert Path(path).read_bytes() == Path(getattr(secure, name)).read_bytes()
        shorter = Path(secure.cert).with_name("shorter.pem")
        shorter.write_bytes(b"short")
        exposure.copy(Api(cert=str(shorter), key=secure.key), descriptors)
        assert Path(paths["cert"]).read_bytes() == b"short"
    for number in descriptors.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    with contextlib.ExitStack() as undo:
        assert exposure.hand_over(Api(), undo) == {}


def test_files_that_are_written_anew_are_told_from_the_old(tmp_path: Path) -> None:
    api = tls.make(tmp_path)
    before = exposure.stamps(api)
    assert exposure.stamps(api) == before
    with Path(api.key).open("ab") as key:
        key.write(b"\n")
    after = exposure.stamps(api)
    assert after not in (None, before)
    Path(api.key).unlink()
    assert exposure.stamps(api) is None
    assert exposure.stamps(Api()) is None
