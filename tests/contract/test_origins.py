"""Pages that a browser has open on the server's machine, and what they get."""

import json
from pathlib import Path

import pytest
import websockets

from sandrun_shared.settings import Api, Executor, Quota, Settings
from support import programs
from support.fake_executor import FakeExecutor
from support.live import Live, serving

pytestmark = pytest.mark.anyio
EVIL = "https://evil.example"
DEVELOPERS = "http://localhost:3000"
TEXT = {"content-type": "text/plain"}


def settings_of(socket: Path, api: Api) -> Settings:
    return Settings(executor=Executor(socket=str(socket)), quota=Quota(0, 0, 0, 0), api=api)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/run", "/metrics", "/status/x", "/nothing"])
@pytest.mark.parametrize("origin", [EVIL, "null"])
async def test_a_page_of_the_web_is_refused(live_fake: Live, method: str, path: str, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST", **TEXT}
    answer = await live_fake.client.request(
        method, path, headers=asks, content=b"" if method == "GET" else b"x"
    )
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    if method != "HEAD":
        assert "[api] allowed_origins" in answer.json()["reason"]


async def test_nothing_runs_for_a_page_of_the_web(live_fake: Live, fake: FakeExecutor) -> None:
    """What needs no preflight: fetch in mode no-cors, and a form of type text/plain."""
    body = programs.HELLO.code.encode()
    for name, value in (("origin", EVIL), ("host", "evil.example:8443"), ("origin", "null")):
        answer = await live_fake.client.post("/run", content=body, headers={name: value, **TEXT})
        assert answer.status_code == (421 if name == "host" else 403)
    stats = (await live_fake.client.get("/stats")).json()
    assert stats["your_quota"]["jobs_this_hour"] == 0
    assert fake.running == 0


async def test_a_name_that_was_made_to_lead_here(live_fake: Live) -> None:
    for path in ("/", "/metrics", "/health", "/docs", "/openapi.json"):
        answer = await live_fake.client.get(path, headers={"host": f"evil.example:{live_fake.port}"})
        assert answer.status_code == 421
        assert "[api] allowed_hosts" in answer.json()["reason"]
        assert "'evil.example'" in answer.json()["reason"]


async def test_pages_of_other_servers_on_this_machine(live_fake: Live) -> None:
    answer = await live_fake.client.post("/run", json={"code": "print(1)"}, headers={"origin": DEVELOPERS})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await live_fake.client.options("/run", headers={"origin": DEVELOPERS, **asks})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("api", [Api(), Api(trusted_proxies="127.0.0.1/32"), Api(allowed_origins="*")])
async def test_no_page_of_another_origin_reads_the_metrics(fake: FakeExecutor, api: Api) -> None:
    async with serving(settings_of(fake.path, api)) as live:
        for headers in ({"origin": DEVELOPERS}, {}):
            answer = await live.client.get("/metrics", headers=headers)
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        asks = {"origin": DEVELOPERS, "access-control-request-method": "GET"}
        assert (await live.client.options("/metrics", headers=asks)).status_code == 405


async def test_metrics_are_not_for_a_made_up_name_wherever_the_server_listens(fake: FakeExecutor) -> None:
    async with serving(settings_of(fake.path, Api(trusted_proxies="127.0.0.1/32"))) as live:
        host = {"host": f"evil.example:{live.port}"}
        assert (await live.client.get("/health", headers=host)).status_code == 200
        assert (await live.client.get("/metrics", headers=host)).status_code == 404


@pytest.mark.parametrize("path", ["/logs/x/stream", "/stream/x"])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", EVIL, 403),
        ("localhost", "null", 403),
        ("evil.example", None, 421),
        ("127.0.0.1", "", 403),
    ],
)
async def test_websockets_too(
    live_fake: Live, path: str, host: str, origin: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused instead of the handshake; nothing is logged, or any page could fill the log."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(
            f"ws://{host}:{live_fake.port}{path}",
            origin=None if origin is None else websockets.Origin(origin),
            host="127.0.0.1",
            port=live_fake.port,
        )
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"")["status"] == status
    assert caplog.text == ""


async def test_websockets_of_pages_of_other_servers_on_this_machine(live_fake: Live) -> None:
    url = f"ws://127.0.0.1:{live_fake.port}/stream/x"
    async with websockets.connect(url, origin=websockets.Origin(DEVELOPERS)) as stream:
        await stream.wait_closed()
    assert stream.close_code == 4404


async def test_what_the_operator_allows(fake: FakeExecutor) -> None:
    api = Api(allowed_hosts="run.lan", allowed_origins=f"{EVIL},null")
    async with serving(settings_of(fake.path, api)) as live:
        for origin in (EVIL, "null", "http://run.lan:8443"):
            headers = {"origin": origin, "host": "run.lan:8443", **TEXT}
            answer = await live.client.post("/run", content=programs.HELLO.code, headers=headers)
            assert (answer.status_code, answer.content) == (200, b"hello\n")
            assert answer.headers["access-control-allow-origin"] == "*"
        answer = await live.client.get("/health", headers={"origin": "https://other.example"})
        assert answer.status_code == 403


async def test_behind_a_proxy_any_page_may_ask(fake: FakeExecutor) -> None:
    async with serving(settings_of(fake.path, Api(behind_proxy=True))) as live:
        headers = {"origin": EVIL, "host": "run.example.org"}
        answer = await live.client.get("/health", headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
