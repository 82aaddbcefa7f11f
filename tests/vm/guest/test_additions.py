"""What an operator may add to the installed services, from deploy/examples: proxies, GPUs, a key, TLS."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sandrun_shared.jobs import Installer, Verdict
from support import installed, machine, tls
from support.executor import Result
from support.installed import API, BACK_SECONDS, EXECUTOR, URL, Installed
from support.registry import Registry, address, wheel

EXAMPLES = Path("/src/deploy/examples")
UNITS = Path("/etc/systemd/system")
SETTINGS = Path("/etc/sandrun/sandrun.toml")
AUTHORITY = Path("/etc/ssl/sandrun-checks.pem")  # what a proxy, which is nobody, can read
GREETING = wheel("greeting", "1.0", {"greeting.py": "print('hello from a package')"})


def again(unit: str) -> None:
    """Have systemd read its files, and a daemon its settings."""
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", unit)


@contextmanager
def drop_in(unit: str, name: str, *lines: str, **settings: str | int) -> Iterator[None]:
    """A service with these lines in its unit, and these settings in place of the defaults in the file."""
    path = UNITS / f"{unit}.d" / f"{name}.conf"
    defaults = text = SETTINGS.read_text()
    for key, value in settings.items():
        text, changed = re.subn(rf"^#{key} = .*$", f"{key} = {json.dumps(value)}", text, flags=re.M)
        assert changed == 1, key
    try:
        path.write_text("\n".join(("[Service]", *lines, "")))
        SETTINGS.write_text(text)
        again(unit)
        yield
    finally:
        path.unlink()
        SETTINGS.write_text(defaults)
        again(unit)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """On a loopback address of this machine, with a test name and a test authority."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    with Registry(tmp_path_factory.mktemp("registry"), address(2)) as served:
        shutil.copy(served.certificate, AUTHORITY)
        AUTHORITY.chmod(0o644)
        hosts.write_text(f"{before}\n{served.address} registry.test other.test\n")
        try:
            yield served
        finally:
            hosts.write_text(before)
            AUTHORITY.unlink()


@pytest.fixture(scope="module")
def executor(registry: Registry) -> Iterator[Installed]:
    """With docs/dependencies.md followed."""
    names = ("sandrun-packages.socket", "sandrun-packages@.service")
    for name in names:
        shutil.copy(EXAMPLES / name, UNITS / name)
    settings = {
        "package_hosts": "registry.test",
        "package_networks": f"{registry.address}/32",
        "package_index_url": "https://registry.test/simple/",
        "package_ca": str(AUTHORITY),
        "package_proxy": "/run/sandrun/packages.sock",
        "install_memory_mb": 256,
        "install_disk_mb": 64,
    }
    try:
        installed.run("systemctl", "daemon-reload")
        installed.run("systemctl", "enable", "--now", names[0])
        with drop_in(EXECUTOR, "packages", **settings):
            yield Installed()
    finally:
        installed.run("systemctl", "disable", "--now", names[0])
        for name in names:
            (UNITS / name).unlink()
        installed.run("systemctl", "daemon-reload")


def proxies() -> list[str]:
    """The units of the proxies that run."""
    listed = installed.run("systemctl", "list-units", "--plain", "--no-legend", "sandrun-packages@*")
    return re.findall(r"^\S+", listed, re.M)


def run(executor: Installed, required: str) -> Result:
    requires = (Installer.uv, {"requirements.txt": required.encode()})
    return executor.run_job("import greeting", requires=requires)


def test_packages_come_through_a_proxy_of_systemds(executor: Installed, registry: Registry) -> None:
    registry.add(GREETING)
    # Not directly, because the executor's network namespace is empty.
    links = Path(f"/proc/{installed.main_pid(EXECUTOR)}/net/dev").read_text().splitlines()[2:]
    assert [link.split(":")[0].strip() for link in links] == ["lo"]
    assert run(executor, "greeting==1.0").ok() == b"hello from a package\n"
    assert registry.count("/files/greeting") > 0
    assert machine.eventually(lambda: proxies() == [], BACK_SECONDS)


def test_a_proxy_was_never_root_and_ends_with_what_it_is_for(executor: Installed, registry: Registry) -> None:
    line = registry.add(wheel("held", "1.0", {"held.py": ""}), folder="/held")
    job = executor.start_job("1", requires=(Installer.uv, {"requirements.txt": line.encode()}))
    assert registry.held.wait(BACK_SECONDS)
    (unit,) = proxies()
    status = Path(f"/proc/{installed.main_pid(unit)}/status").read_text()
    assert "0" not in re.search(r"^Uid:\t(.*)$", status, re.M)[1].split()
    assert {int(value, 16) for value in re.findall(r"^Cap\w+:\t(\w+)$", status, re.M)} == {0}
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)
    job.hang_up()
    assert machine.eventually(lambda: proxies() == [], BACK_SECONDS)
    registry.hold.set()


def test_other_hosts_are_refused(executor: Installed, registry: Registry) -> None:
    asked = len(registry.asked)
    result = run(executor, "greeting @ https://other.test/files/greeting-1.0-py3-none-any.whl")
    assert result.outcome.verdict is Verdict.setup_error
    assert "does not let it reach" in result.outcome.detail
    assert len(registry.asked) == asked


def test_the_drop_in_for_gpus_on_a_machine_without() -> None:
    example = (EXAMPLES / "sandrun-executor-gpu.conf").read_text()
    with drop_in(EXECUTOR, "gpu", example, gpu=True):
        assert "char-nvidia" in installed.show(EXECUTOR, "DeviceAllow")
        assert Installed().describe().gpus == ()
        installed.hello(Installed())


def test_receipts_signed_with_a_key_that_systemd_holds(tmp_path: Path) -> None:
    key = Path("/etc/sandrun/worker.key")  # as the example names it
    worker = installed.run("sandrun", "keygen", str(key)).split()[-1]
    example = (EXAMPLES / "worker-key.conf").read_text()
    try:
        with drop_in(EXECUTOR, "key", example, worker_key="worker.key"):
            files = {"files": ("main.py", b"print('signed')")}
            data = {"manifest": '{"entrypoint": "main.py"}'}
            with httpx.Client(base_url=URL, timeout=BACK_SECONDS, trust_env=False) as client:
                job = client.post("/submit", files=files, data=data).json()["job_id"]
                status = tmp_path / "status.json"
                for _ in range(10):
                    status.write_text(client.get(f"/status/{job}", params={"wait": 30}).text)
                    if '"completed"' in status.read_text():
                        break
                client.delete(f"/jobs/{job}")
            said = installed.run("sandrun", "verify", "--worker", worker, str(status))
            assert "DIFFERS" not in said
            with pytest.raises(subprocess.CalledProcessError):
                installed.run("sandrun", "verify", "--worker", "A" * 43 + "=", str(status))
    finally:
        key.unlink()


def test_tls_with_a_key_that_systemd_holds(tmp_path: Path) -> None:
    certificate, key = Path("/etc/sandrun/tls.crt"), Path("/etc/sandrun/tls.key")  # as the example names them
    made = tls.make(tmp_path)
    shutil.copy(made.cert, certificate)
    shutil.copy(made.key, key)
    try:
        example = (EXAMPLES / "tls.conf").read_text()
        with drop_in(API, "tls", example, cert="tls.crt", key="tls.key", host=""):
            url = URL.replace("http:", "https:")
            body = {"code": "print('over TLS')"}
            answer = httpx.post(
                f"{url}/run", json=body, verify=tls.trusting(made), timeout=BACK_SECONDS, trust_env=False
            )
            assert answer.json()["stdout"] == "over TLS\n"
            assert key.stat().st_mode & 0o777 == 0o600
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{URL}/health", timeout=BACK_SECONDS, trust_env=False)
    finally:
        key.unlink()
        certificate.unlink()
    assert installed.post({"code": "print(1)"})["verdict"] == "ok"
