"""Who a request comes from, directly and behind proxies."""

import pytest

from sandrun_api.edge import clients
from sandrun_api.edge.clients import Clients, key_of
from sandrun_shared.settings import SettingsError, networks

PROXIES = Clients(networks("10.0.0.0/8, 2001:db8:ffff::/48,192.0.2.7", "api.trusted_proxies"))


def test_clients_are_networks() -> None:
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff") == key_of("2001:db8::1%eth0")
    assert key_of("2001:db8:0:1::1") != key_of("2001:db8::1")
    assert key_of("::ffff:192.0.2.1") == key_of("192.0.2.1")
    assert key_of("192.0.2.1") != key_of("192.0.2.2")
    assert "192" not in key_of("192.0.2.1")


def test_no_address_is_kept() -> None:
    key_of("198.51.100.77")
    assert "198.51.100.77" not in repr(vars(clients))
    assert not hasattr(key_of, "cache_info")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("198.51.100.9", ["198.51.100.1"], "198.51.100.9"),  # not a proxy: its word is worth nothing
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.1 ,192.0.2.7"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # a client among the proxies
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [",,,"], "10.0.0.1"),
        ("10.0.0.1", ["\udcff\x00"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("10.0.0.1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:ffff::1", ["198.51.100.1, ::ffff:10.2.2.2"], "198.51.100.1"),
        ("local", ["198.51.100.1"], "local"),
    ],
)
def test_the_rightmost_hop_that_is_not_a_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert PROXIES.host(peer, forwarded) == client


def test_nobody_is_trusted_unless_named() -> None:
    assert Clients().host("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


@pytest.mark.parametrize("text", ["10.0.0.0/99", "proxy.example", "10.0.0.1/8"])
def test_a_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=r"api\.trusted_proxies"):
        networks(text, "api.trusted_proxies")
