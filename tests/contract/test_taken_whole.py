"""Nothing that a client gave is dropped or replaced without a word; what its tools write is understood."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandrun_api.jobs.manifest import STDIN_BYTES
from sandrun_api.uploads.contents import MANIFEST_BYTES
from sandrun_shared.languages import BY_NAME
from sandrun_shared.settings import Settings
from support import programs
from support.live import Live, serving

pytestmark = pytest.mark.anyio
TEXT = {"content-type": "text/plain"}
BOM = "\ufeff"
ECHO = "import sys; print(len(sys.stdin.buffer.read()))"


@pytest.fixture
async def live_real(real_socket: Path, settings_of: Callable[[Path], Settings]) -> AsyncIterator[Live]:
    """The server in front of the real executor only: what programs see counts here."""
    async with serving(settings_of(real_socket)) as server:
        yield server


async def submit(live: Live, manifest: Any, *files: tuple[str, bytes]) -> httpx.Response:
    data = (
        {}
        if manifest is None
        else {"manifest": manifest if isinstance(manifest, str) else json.dumps(manifest)}
    )
    return await live.client.post("/submit", files=[("files", file) for file in files], data=data)


async def said(live: Live, response: httpx.Response) -> str:
    """What the job printed. Raises AssertionError for one that was not taken or failed."""
    assert response.status_code == 200, response.text
    status = (await live.client.get(response.headers["location"], params={"wait": 30})).json()
    logs = (await live.client.get(f"/logs/{status['job_id']}")).json()
    assert status["verdict"] == "ok", logs
    return str(logs["stdout"])


def refused(answer: httpx.Response, *words: str, code: int = 400) -> None:
    assert answer.status_code == code, answer.text
    for word in words:
        assert word in answer.json()["reason"]


@pytest.mark.parametrize("path", ["main.py", "./main.py", "main.py/.", ".//main.py"])
async def test_a_file_with_the_name_of_the_code(live_fake: Live, path: str) -> None:
    answer = await live_fake.client.post("/run", json={"code": "print(1)", "files": {path: "x"}})
    refused(answer, path, "'code'") if not path.endswith("/.") else refused(answer, "main.py")


async def test_files_with_one_name(live_fake: Live) -> None:
    body = {"code": "print(1)", "files": {"a.txt": "x", "./a.txt": "y"}}
    refused(await live_fake.client.post("/run", json=body), "'a.txt' under two names")
    refused(await submit(live_fake, {"entrypoint": "a"}, ("a", b"1"), ("./a", b"2")), "two files 'a'")


@pytest.mark.parametrize(
    "body",
    [
        '{"code": "1", "code": "2"}',
        '{"code": "1", "files": {"a": "", "a": "x"}}',
        '{"code": "1", "env": {"A": "", "A": "x"}}',
    ],
)
async def test_names_that_are_there_twice(live_fake: Live, body: str) -> None:
    answer = await live_fake.client.post("/run", content=body, headers={"content-type": "application/json"})
    refused(answer, "is there twice")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?interpeter=node", ("unknown parameter 'interpeter'", "interpreter and environment")),
        ("?timeout=1", ("unknown parameter 'timeout'",)),
        ("?interpreter=sh&interpreter=node", ("'interpreter' twice",)),
    ],
)
@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
async def test_parameters_of_the_address(
    live_fake: Live, query: str, words: tuple[str, ...], kind: str
) -> None:
    answer = await live_fake.client.post(
        f"/run{query}", content='{"code": "1"}', headers={"content-type": kind}
    )
    refused(answer, *words)
    if "interpreter=sh&" not in query:
        answer = await live_fake.client.post(f"/submit{query}", content="", headers=TEXT)
        refused(answer, "parameter")


@pytest.mark.root
async def test_the_address_and_a_json_body(live_real: Live) -> None:
    hello = {"code": "echo hello"}
    answer = await live_real.client.post("/run?interpreter=bash", json=hello)
    assert answer.json()["stdout"] == "hello\n"
    answer = await live_real.client.post(
        "/run?interpreter=python", json={"code": "print(1)", "interpreter": "python3"}
    )
    assert answer.json()["stdout"] == "1\n"
    for query, body in (("interpreter=bash", {"interpreter": "sh"}), ("environment=a", {"environment": "b"})):
        refused(
            await live_real.client.post(f"/run?{query}", json={**hello, **body}),
            "in the address",
            "in the body",
        )
    refused(await live_real.client.post("/run?environment=nowhere", json=hello), "'nowhere'")


async def test_a_run_has_no_idempotency_key(live_fake: Live) -> None:
    answer = await live_fake.client.post("/run", content="1", headers={**TEXT, "idempotency-key": "a"})
    refused(answer, "Idempotency-Key", "/submit")


async def test_a_key_stands_for_one_body(live_fake: Live) -> None:
    for code, status in ((b"pass", 200), (b"pass", 200), (b"print()", 409)):
        answer = await live_fake.client.post(
            "/submit",
            files={"files": ("main.py", code)},
            data={"manifest": '{"entrypoint": "main.py"}'},
            headers={"idempotency-key": "once"},
        )
        assert answer.status_code == status


@pytest.mark.root
async def test_a_manifest_beside_a_job_json_is_told(live_real: Live) -> None:
    code, other = b"print('part')", b"print('job.json')"
    files = (("a.py", code), ("b.py", other), ("job.json", b'{"entrypoint": "b.py"}'))
    answer = await submit(live_real, {"entrypoint": "a.py"}, *files)
    assert answer.json()["notes"] == [
        "job.json of the upload is a file like any other: the part 'manifest' counts."
    ]
    assert await said(live_real, answer) == "part\n"
    answer = await submit(live_real, None, *files)
    assert answer.json()["notes"] == []
    assert await said(live_real, answer) == "job.json\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-8", "utf-8"),
        ('"UTF-8"', "utf-8"),
        ("us-ascii", "utf-8"),
        ("ISO-8859-1", "latin-1"),
        ("utf-16", "utf-16"),
    ],
)
async def test_charsets(live_real: Live, charset: str, codec: str) -> None:
    code = "print(ascii('é'))".encode(codec)
    answer = await live_real.client.post(
        "/run", content=code, headers={"content-type": f"text/plain; charset={charset}"}
    )
    assert answer.content == b"'\\xe9'\n"


async def test_charsets_that_are_not_known(live_fake: Live) -> None:
    answer = await live_fake.client.post(
        "/run", content="1", headers={"content-type": "text/plain; charset=koi8-r"}
    )
    refused(answer, "UTF-8", code=415)


@pytest.mark.root
async def test_what_a_run_takes_a_submission_takes(live_real: Live) -> None:
    """A megabyte of standard input, in each of the ways that lead to a job."""
    text = "x" * (1 << 20)
    answer = await live_real.client.post("/run", json={"code": ECHO, "stdin": text})
    assert answer.json()["stdout"] == "1048576\n"
    manifest = json.dumps({"entrypoint": "main.py", "stdin": text})
    assert await said(live_real, await submit(live_real, manifest, ("main.py", ECHO.encode()))) == "1048576\n"
    files = (("main.py", ECHO.encode()), ("job.json", manifest.encode()))
    assert await said(live_real, await submit(live_real, None, *files)) == "1048576\n"


async def test_the_most_that_standard_input_may_have(live_fake: Live) -> None:
    for size, status in ((STDIN_BYTES, 200), (STDIN_BYTES + 1, 413)):
        manifest = json.dumps({"entrypoint": "main.py", "stdin": "x" * size})
        answer = await submit(live_fake, manifest, ("main.py", programs.HELLO.code.encode()))
        assert answer.status_code == status, answer.text[:1000]
    answer = await submit(live_fake, " " * (MANIFEST_BYTES + 1), ("main.py", b""))
    refused(answer, "16 MiB", code=413)
    answer = await submit(live_fake, None, ("job.json", b" " * (MANIFEST_BYTES + 1)))
    refused(answer, "job.json has more than", code=413)


async def test_null_is_absent(live_fake: Live) -> None:
    """Everything optional as null, as clients generated from the document send it."""
    document = (await live_fake.client.get("/openapi.json")).json()["components"]["schemas"]

    def nulls(name: str) -> dict[str, None]:
        schema = document[name]
        return dict.fromkeys(set(schema["properties"]) - set(schema["required"]))

    code = programs.HELLO.code
    run, manifest = nulls("RunRequest"), nulls("Manifest")
    assert run.keys() - {"files"} == manifest.keys() >= {"args", "env", "gpu", "priority", "encrypt_to"}
    answer = await live_fake.client.post("/run", json={"code": code, **run})
    assert answer.json()["stdout"] == "hello\n"
    for gpu in (None, {"required": False, "device_id": None, "min_vram_gb": None}):
        given = {"entrypoint": "main.py", **manifest, "gpu": gpu}
        assert await said(live_fake, await submit(live_fake, given, ("main.py", code.encode()))) == "hello\n"
        files = (("main.py", code.encode()), ("job.json", json.dumps(given).encode()))
        assert await said(live_fake, await submit(live_fake, None, *files)) == "hello\n"


ONE = {
    "python3": "print(1)",
    "node": "console.log(1)",
    "bash": "echo 1",
    "sh": "echo 1",
    "ruby": "puts 1",
    "Rscript": 'cat("1\\n")',
    "perl": 'print "1\\n"',
    "php": '<?php echo "1\\n";',
    "c": '#include <stdio.h>\nint main(void) { puts("1"); }',
    "cpp": '#include <cstdio>\nint main() { puts("1"); }',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(1) }',
    "rust": 'fn main() { println!("1"); }',
}


@pytest.mark.root
async def test_code_with_a_byte_order_mark(live_real: Live) -> None:
    """In every language, a #! line before it or none: the mark is no part of the program."""
    installed = (await live_real.client.get("/")).json()["interpreters"]
    assert {"python3", "node", "bash", "sh", "perl"} <= set(installed)
    for interpreter in set(installed) & ONE.keys():
        code = ONE[interpreter]
        scripts = [code] if BY_NAME[interpreter].compiler else [code, f"#!/usr/bin/{interpreter}\n{code}"]
        for script in scripts:
            answer = await live_real.client.post(
                f"/run?interpreter={interpreter}", content=BOM + script, headers=TEXT
            )
            assert (interpreter, answer.content) == (interpreter, b"1\n")
        asked = {"code": BOM + code, "interpreter": interpreter}
        answer = await live_real.client.post("/run", json=asked)
        assert (interpreter, answer.json()["output"]) == (interpreter, "1\n")


async def test_documents_with_a_byte_order_mark(live: Live) -> None:
    hello = programs.HELLO.code.encode()
    body = BOM + json.dumps({"code": programs.HELLO.code})
    answer = await live.client.post("/run", content=body, headers={"content-type": "application/json"})
    assert answer.json()["stdout"] == "hello\n"
    manifest = BOM + '{"entrypoint": "main.py"}'
    assert await said(live, await submit(live, manifest, ("main.py", hello))) == "hello\n"
    files = (("main.py", hello), ("job.json", manifest.encode()))
    assert await said(live, await submit(live, None, *files)) == "hello\n"


@pytest.mark.root
async def test_a_byte_order_mark_before_the_line_that_names_the_interpreter(live_real: Live) -> None:
    code = (BOM + "#!/usr/bin/env python3\nprint(1)").encode()
    answer = await submit(live_real, {"entrypoint": "tool"}, ("tool", code))
    assert answer.json()["notes"] == []  # Python skips it
    assert await said(live_real, answer) == "1\n"
    answer = await submit(live_real, {"entrypoint": "tool"}, ("tool", (BOM + "#!/bin/bash\n").encode()))
    assert "'tool' begins with a byte order mark, which bash takes" in answer.json()["notes"][0]
    answer = await submit(live_real, {"entrypoint": "a.sh"}, ("a.sh", (BOM + "echo 1\n").encode()))
    assert "which sh takes" in answer.json()["notes"][0]


@pytest.mark.root
async def test_standard_input_keeps_its_byte_order_mark(live_real: Live) -> None:
    code = "import sys; print(sys.stdin.buffer.read())"
    answer = await live_real.client.post("/run", json={"code": code, "stdin": BOM + "x"})
    assert answer.json()["stdout"] == "b'\\xef\\xbb\\xbfx'\n"


@pytest.mark.parametrize("name", ["Python", "PYTHON3", "py", "Python3"])
async def test_languages_by_the_names_that_people_use(live_fake: Live, name: str) -> None:
    code = programs.HELLO.code
    answer = await live_fake.client.post("/run", json={"code": code, "interpreter": name})
    assert answer.json()["stdout"] == "hello\n"
    answer = await live_fake.client.post(f"/run?interpreter={name}", content=code, headers=TEXT)
    assert answer.content == b"hello\n"
    manifest = {"entrypoint": "main", "interpreter": name}
    assert await said(live_fake, await submit(live_fake, manifest, ("main", code.encode()))) == "hello\n"
