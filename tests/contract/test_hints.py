"""A hint is in the answer and never in what the program printed."""

import json

import pytest

from support import programs
from support.live import Live
from support.sse import all_events

pytestmark = pytest.mark.anyio
NEEDS = programs.Program(
    "import sys\nsys.stderr.write(\"ModuleNotFoundError: No module named 'cowsay'\\n\")\nsys.exit(1)\n",
    ((2, b"ModuleNotFoundError: No module named 'cowsay'\n"),),
    exit_code=1,
)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.fake_executor.ALL", [*programs.ALL, NEEDS])


async def test_where_it_is_told(live: Live) -> None:
    run = (await live.client.post("/run", json={"code": NEEDS.code})).json()
    [hint] = run["hints"]
    assert hint["code"] == "module_missing"
    assert "'cowsay'" in hint["message"]
    assert (run["stdout"], run["stderr"].encode()) == ("", NEEDS.stream(2))
    submitted = await live.client.post(
        "/submit",
        files=[("files", ("main.py", NEEDS.code.encode()))],
        data={"manifest": json.dumps({"entrypoint": "main.py"})},
    )
    status = (await live.client.get(submitted.headers["location"], params={"wait": 30})).json()
    assert status["hints"] == [hint]
    async with live.client.stream("GET", f"/logs/{status['job_id']}/events") as answer:
        last = (await all_events(answer))[-1]
    assert last.data["hints"] == [hint]
    text = await live.client.get(f"/logs/{status['job_id']}", headers={"accept": "text/plain"})
    assert text.content == NEEDS.stream(2)


async def test_what_needs_none_has_none(live: Live) -> None:
    assert (await live.client.post("/run", json={"code": programs.FAILS.code})).json()["hints"] == []
