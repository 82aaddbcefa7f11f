"""Which addresses the package proxy may connect to."""

import asyncio
import ipaddress
import socket

import pytest

from sandrun_helpers import addresses as proxy_addresses

PRIVATE = (
    "0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 172.31.255.255"
    " 192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.9 224.0.0.1 240.0.0.1 255.255.255.255"
    " 168.63.129.16 192.88.99.1 :: ::1 ::ffff:1.1.1.1 ::ffff:127.0.0.1 ::1.1.1.1 64:ff9b::7f00:1 64:ff9b:1::1"
    " 100::1 2001::1 2001:db8::1 2002:7f00:1::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1"
).split()
PUBLIC = ("1.1.1.1", "8.8.4.4", "151.101.1.1", "2606:4700::1111", "2a04:4e42::1")


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_is_not_public(text: str) -> None:
    assert not proxy_addresses.is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address(text: str) -> None:
    assert proxy_addresses.is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.2.0.1", False),
        ("169.254.169.254", False),
        ("::ffff:10.1.2.3", False),
        ("fd00::5", True),
        ("fe80::1", False),
    ],
)
def test_networks_of_the_operator(text: str, allowed: bool) -> None:
    words = ("10.1.0.0/16", "169.254.0.0/16", "fd00::/8", "fe80::/10", "::ffff:0:0/96")
    networks = tuple(ipaddress.ip_network(word) for word in words)
    assert proxy_addresses.may_reach(ipaddress.ip_address(text), networks) is allowed


def test_an_address_of_this_machine() -> None:
    assert proxy_addresses.is_ours(ipaddress.ip_address("127.0.0.1"))
    assert not proxy_addresses.is_ours(ipaddress.ip_address("192.0.2.7"))


def _answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 443)) for text in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_only_public_ones_of_a_names_addresses_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "127.0.0.1", "1.1.1.1", "10.0.0.1")
    assert [str(found) for found in asyncio.run(proxy_addresses.resolve("mixed.test"))] == ["1.1.1.1"]


def test_a_name_with_private_addresses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "127.0.0.1", "169.254.169.254")
    with pytest.raises(proxy_addresses.AddressRefused):
        asyncio.run(proxy_addresses.resolve("private.test"))
