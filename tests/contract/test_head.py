"""HEAD wherever GET is answered, and other parts of HTTP that no route is about."""

import asyncio
import gzip
import json

import httpx
import pytest

from sandrun_api.app import create_app
from sandrun_shared.settings import Api, Settings
from support import programs
from support.live import Live

pytestmark = pytest.mark.anyio
CHANGES = {"date"}  # from answer to answer


def paths() -> set[str]:
    """The templates of all GET routes, adapters' included."""

    def of(routes: object) -> set[str]:
        found: set[str] = set()
        for route in routes:  # type: ignore[attr-defined]
            if "GET" in (getattr(route, "methods", None) or ()):
                found.add(route.path)
            found |= of(getattr(getattr(route, "original_router", None), "routes", ()))
        return found

    return of(create_app(Settings(api=Api(adapters=("piston", "judge0")))).routes)


async def submitted(live: Live, program: programs.Program) -> str:
    response = await live.client.post(
        "/submit",
        files=[("files", ("main.py", program.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py"})},
    )
    status = await live.client.get(response.headers["location"], params={"wait": 30})
    return str(status.json()["job_id"])


def compared(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in CHANGES}


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/health", "/stats", "/environments", "/openapi.json", "/docs", "/embed", "/assets/style.css"),
        *("/status/{}", "/status/{}?wait=1", "/logs/{}", "/logs/{}/events", "/outputs/{}"),
        *("/download/{}", "/download/{}/results/data.csv", "/outputs/{}/results/data.csv"),
        *("/status/unknown", "/nothing", "/status/{}?wait=never", "/run", "/submit"),
    ],
)
async def test_head_is_get_without_the_body(live: Live, path: str, deadline: float) -> None:
    job_id = await submitted(live, programs.FILES)
    async with asyncio.timeout(deadline):
        for headers in ({}, {"accept": "text/html, text/plain"}):
            head = await live.client.head(path.format(job_id), headers=headers)
            assert head.content == b""
            assert (await live.client.get(f"/status/{job_id}")).status_code == 200  # nothing was deleted
            if path != "/download/{}":
                get = await live.client.get(path.format(job_id), headers=headers)
                assert head.status_code == get.status_code
                assert compared(head) == compared(get)
        if path == "/download/{}":
            get = await live.client.get(path.format(job_id))
            assert compared(head) == compared(get)
            assert (await live.client.get(f"/status/{job_id}")).status_code == 404


async def test_every_get_route_is_among_these() -> None:
    known = {
        *(
            "/",
            "/health",
            "/stats",
            "/environments",
            "/openapi.json",
            "/docs",
            "/embed",
            "/assets/{path:path}",
        ),
        *("/status/{job_id}", "/logs/{job_id}", "/logs/{job_id}/events", "/outputs/{job_id}"),
        *(
            "/download/{job_id}",
            "/download/{job_id}/{path:name}",
            "/outputs/{job_id}/{path:name}",
            "/metrics",
        ),
    }
    assert {path for path in paths() if not path.startswith(("/api", "/sub"))} >= known


async def test_head_of_a_running_jobs_events_ends(live_fake: Live, deadline: float) -> None:
    response = await live_fake.client.post(
        "/submit",
        files=[("files", ("main.py", programs.WAITS.code.encode()))],
        data={"manifest": '{"entrypoint": "main.py"}'},
    )
    job_id = response.json()["job_id"]
    async with asyncio.timeout(deadline):
        for _ in range(3):
            head = await live_fake.client.head(f"/logs/{job_id}/events")
            assert head.headers["content-type"].startswith("text/event-stream")
        await live_fake.client.delete(f"/jobs/{job_id}")


async def test_head_ignores_ranges(live_fake: Live) -> None:
    job_id = await submitted(live_fake, programs.FILES)
    head = await live_fake.client.head(f"/download/{job_id}/results/data.csv", headers={"range": "bytes=0-0"})
    assert (head.status_code, head.headers["content-length"]) == (200, "8")
    same = await live_fake.client.head(
        f"/download/{job_id}/results/data.csv", headers={"if-none-match": head.headers["etag"]}
    )
    assert same.status_code == 304


async def test_head_is_counted_as_get(live_fake: Live) -> None:
    await live_fake.client.head("/health")
    text = (await live_fake.client.get("/metrics")).text
    assert 'sandrun_http_requests_total{route="/health",status="200"} 1.0' in text


async def test_methods_are_told(live_fake: Live) -> None:
    answer = await live_fake.client.put("/health")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await live_fake.client.head("/run")).headers["allow"] == "POST"


async def test_options_of_the_server(live_fake: Live) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live_fake.port)
    writer.write(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 204")
    assert b"allow: GET, HEAD, POST, DELETE, OPTIONS" in answer


async def test_absolute_targets_are_those_of_their_path(live_fake: Live) -> None:
    for host, status in ((b"localhost", b"200"), (b"evil.example", b"421")):
        reader, writer = await asyncio.open_connection("127.0.0.1", live_fake.port)
        writer.write(b"GET http://%b/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % host)
        assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
        writer.close()


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 36\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n",
    ],
)
async def test_no_second_request_hides_in_a_first(live_fake: Live, fields: bytes, deadline: float) -> None:
    """A body that ends at two places: no request of what follows is answered, and the connection ends."""
    hidden = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n%b\r\n" % fields
    reader, writer = await asyncio.open_connection("127.0.0.1", live_fake.port)
    writer.write(head + b"0\r\n\r\n" + hidden)
    async with asyncio.timeout(deadline):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer
    assert b"\r\ndate: " in answer


@pytest.mark.parametrize("path", ["/run", "/submit"])
async def test_a_coded_body_is_refused(live_fake: Live, path: str) -> None:
    headers = {"content-type": "text/plain", "content-encoding": "gzip"}
    answer = await live_fake.client.post(path, content=gzip.compress(b"print(1)"), headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "Content-Encoding" in answer.json()["reason"]
