"""The two clients have the same methods: drift between them fails here."""

import inspect

import pytest

from sandrun_client import AsyncSandrunClient, SandrunClient, SandrunError, connecting, errors

RENAMED = {"aclose": "close"}


def methods(client: type) -> dict[str, object]:
    return {
        RENAMED.get(name, name): member
        for name, member in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_same_names() -> None:
    assert methods(SandrunClient).keys() == methods(AsyncSandrunClient).keys()


@pytest.mark.parametrize("name", sorted(methods(SandrunClient)))
def test_same_signature_and_words(name: str) -> None:
    one, other = methods(SandrunClient)[name], methods(AsyncSandrunClient)[name]
    signature, others = inspect.signature(one), inspect.signature(other)  # type: ignore[arg-type]
    assert signature.parameters == others.parameters
    assert others.return_annotation in (
        signature.return_annotation,
        str(signature.return_annotation).replace("collections.abc.", "").replace("Iterator", "AsyncIterator"),
    ) or "Iterator" in str(others.return_annotation)
    assert one.__doc__ == other.__doc__
    assert one.__doc__


def test_same_constructor_but_for_the_transport() -> None:
    one, other = (inspect.signature(client).parameters for client in (SandrunClient, AsyncSandrunClient))
    assert list(one) == list(other)
    assert all(one[name].default == other[name].default for name in one)


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    names = {
        name
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, SandrunError)
    }
    assert {name for name in names if name not in (SandrunError.__doc__ or "")} == set()


@pytest.mark.parametrize("url", ["server", "ftp://server", "http://", "http://server:x"])
def test_no_address(url: str) -> None:
    with pytest.raises(SandrunError, match="not the address of a server"):
        SandrunClient(url)


def test_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANDRUN_URL", raising=False)
    assert connecting.base_url(None) == "http://localhost:8443"
    monkeypatch.setenv("SANDRUN_URL", "https://run.test/")
    assert connecting.base_url(None) == "https://run.test"
    assert connecting.base_url("http://other.test") == "http://other.test"


@pytest.mark.parametrize(
    ("url", "proxied"), [("http://127.0.0.1:1", False), ("http://[::1]", False), ("http://run.test", True)]
)
def test_only_the_world_outside_is_proxied(url: str, proxied: bool) -> None:
    assert connecting.http_options(url, 1, True, {})["trust_env"] is proxied
