"""Which names and origins a server takes, by its settings."""

import pytest
from starlette.datastructures import Headers

from sandrun_api.edge.origins import Rules, is_name_here
from sandrun_shared.settings import Api, SettingsError


def status(api: Api, host: str | None = "localhost:8443", origin: str | None = None) -> int | None:
    """The status of the refusal."""
    fields = {"host": host, "origin": origin}
    error = Rules.of(api).refusal(
        Headers({name: value for name, value in fields.items() if value is not None})
    )
    return None if error is None else error.status


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:8443",
            "LocalHost:8443",
            "localhost.",
            "sandrun.localhost:1",
            "127.0.0.1:8443",
        ),
        *("127.8.8.8", "[::1]:8443", "[::1]", "[::ffff:127.0.0.1]:8443", "localhost:"),
        # A page's own name is never an address.
        *("192.0.2.1:8443", "0.0.0.0:8443", "[2001:db8::1]:8443"),
        *("", None),  # HTTP/1.0
    ],
)
def test_names_of_loopback(host: str | None) -> None:
    assert status(Api(), host) is None
    assert is_name_here(host or "", Api())


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8443", "localhost.evil.example", "127.0.0.1.evil.example:8443"),
        *("notlocalhost", "x", "[::1", "127.1", "2130706433", "0x7f.1", "localhost:80:80"),
    ],
)
def test_names_that_a_page_could_have_made_up(host: str) -> None:
    assert status(Api(), host) == 421
    assert not is_name_here(host, Api())
    assert not is_name_here(host, Api(behind_proxy=True, trusted_proxies="127.0.0.1"))


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost", "http://localhost:3000", "https://localhost", "http://127.0.0.1:5173"),
        *("http://[::1]:3000", "http://app.localhost:3000", "HTTP://LOCALHOST:3000", None),
    ],
)
def test_pages_of_loopback(origin: str | None) -> None:
    assert status(Api(), origin=origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://localhost.evil.example", "null", "", "http://evil.example:8443"),
        *("chrome-extension://abc", "file://", "http://localhost@evil.example", "http://localhost:3000 "),
        *("http://localhost/", "http://192.0.2.1:8443", "tauri://localhost", "http://localhost, http://evil"),
    ],
)
def test_pages_of_the_web(origin: str) -> None:
    assert status(Api(), origin=origin) == 403


def test_a_page_that_the_server_itself_gave() -> None:
    assert status(Api(), "192.0.2.1:8443", "http://192.0.2.1:8443") is None
    assert status(Api(), "192.0.2.1:8443", "http://192.0.2.1:8444") == 403
    assert status(Api(), "192.0.2.1", "https://192.0.2.1:443") is None
    assert status(Api(allowed_hosts="run.lan"), "run.lan:8443", "http://run.lan:8443") is None


def test_what_the_settings_add() -> None:
    api = Api(
        allowed_hosts="run.lan, RUN2.lan", allowed_origins="https://App.example.org,null,vscode-webview://a"
    )
    assert status(api, "run.lan:8443") is None
    assert status(api, "run2.LAN") is None
    assert status(api, "run3.lan") == 421
    for origin in ("https://app.example.org", "null", "vscode-webview://a", "http://localhost:1"):
        assert status(api, origin=origin) is None
    for origin in ("http://app.example.org", "https://app.example.org:444", "https://evil.example"):
        assert status(api, origin=origin) == 403
    anybody = Api(allowed_hosts="*", allowed_origins="*")
    assert status(anybody, "evil.example", "https://evil.example") is None


@pytest.mark.parametrize(
    "api",
    [
        Api(host="0.0.0.0", cert="c", key="k"),
        Api(host="0.0.0.0", behind_proxy=True),
        Api(behind_proxy=True),
        Api(trusted_proxies="127.0.0.1/32"),
    ],
)
def test_others_are_open_unless_they_say_so(api: Api) -> None:
    assert status(api, "run.example.org", "https://evil.example") is None


def test_a_server_for_the_network_may_be_as_strict() -> None:
    api = Api(
        host="0.0.0.0",
        behind_proxy=True,
        allowed_hosts="run.example.org",
        allowed_origins="https://a.example",
    )
    assert status(api, "run.example.org", "https://a.example") is None
    assert status(api, "run.example.org", "https://run.example.org") is None  # its own page
    assert status(api, "run.example.org", "https://evil.example") == 403
    assert status(api, "evil.example", None) == 421


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"allowed_hosts": "http://run.lan"}, "api.allowed_hosts: 'http://run.lan'"),
        ({"allowed_hosts": "run.lan:8443"}, "api.allowed_hosts"),
        ({"allowed_origins": "app.example.org"}, "api.allowed_origins: 'app.example.org'"),
        ({"allowed_origins": "https://app.example.org/"}, "api.allowed_origins"),
        ({"allowed_origins": "https://*.example.org"}, "api.allowed_origins"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=r"api\.allowed") as caught:
        Rules.of(Api(**settings))
    assert said in str(caught.value)
