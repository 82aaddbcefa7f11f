"""`sandrun up` beyond plain loopback: TLS with a key that only root reads, and what it refuses."""

import os
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from support import machine, tls
from support.service import COMMAND, Service, free_port

TIMEOUT_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path, _root: None) -> Path:
    """Only root's."""
    tmp_path.chmod(0o700)
    return tmp_path


def test_the_key_stays_roots(folder: Path) -> None:
    api = tls.make(folder)
    service = Service()
    service.command = [*COMMAND, "--cert", api.cert, "--key", api.key]
    service.client.close()
    url = f"https://127.0.0.1:{service.port}"
    service.client = httpx.Client(base_url=url, timeout=60, verify=tls.trusting(api), trust_env=False)
    with service:
        assert f"Sandrun is ready on {url}" in service.said
        assert service.run("print(1)")["stdout"] == "1\n"
        pid = service.daemon("sandrun_api")
        assert Path(f"/proc/{pid}").stat().st_uid != os.stat(api.key).st_uid == 0
        held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert api.key not in held
        # The executor, and so every job, has neither file.
        executor = service.daemon("sandrun_executor")
        assert not {
            name
            for name in (os.readlink(entry) for entry in Path(f"/proc/{executor}/fd").iterdir())
            if name.startswith(("/memfd:cert", "/memfd:key"))
        }
    assert machine.eventually(lambda: not machine.of_jobs(service))


def test_a_renewed_certificate_is_shown_without_a_restart(folder: Path) -> None:
    api = tls.make(folder)
    service = Service()
    service.command = [*COMMAND, "--cert", api.cert, "--key", api.key]
    service.client.close()
    with service:
        pid = service.daemon("sandrun_api")
        tls.make(folder)
        renewed = Path(api.cert).read_text()
        address = ("127.0.0.1", service.port)
        assert machine.eventually(lambda: ssl.get_server_certificate(address) == renewed)
        assert service.daemon("sandrun_api") == pid


@pytest.mark.parametrize("name", ["worker.key", "./worker.key"])
def test_a_key_that_is_no_path_is_refused(folder: Path, name: str) -> None:
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SANDRUN_EXECUTOR__SOCKET": str(folder / "run" / "s")}
    done = subprocess.run(
        COMMAND,
        env={**environ, "SANDRUN_EXECUTOR__WORKER_KEY": name},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 125
    assert "the whole path of the file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--behind-proxy"),
        (["--cert", "/nowhere/cert.pem"], "needs both"),
        (["--cert", "/nowhere/cert.pem", "--key", "/nowhere/key.pem"], "cannot read /nowhere/cert.pem"),
    ],
)
def test_what_must_not_be_exposed_is_not_started(folder: Path, options: list[str], words: str) -> None:
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SANDRUN_EXECUTOR__SOCKET": str(folder / "run" / "s")}
    port = free_port()
    done = subprocess.run(
        [*COMMAND, "--port", str(port), *options],
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 125
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "run").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
