"""The files of an installation agree with the settings, with the code and with each other."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandrun_executor import preflight
from sandrun_executor.cgroups import v2
from sandrun_shared.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"
UNITS = DEPLOY / "systemd"
SERVICES = ("sandrun-api.service", "sandrun-executor.service")
FILTERS = (  # of systemd.exec(5): system call filters, which a job would inherit
    "MemoryDenyWriteExecute RestrictNamespaces SystemCallFilter SystemCallArchitectures"
    " RestrictAddressFamilies RestrictRealtime LockPersonality RestrictSUIDSGID ProtectHostname"
).split()
BREAKING = "ProtectControlGroups ProtectProc ProcSubset PrivateDevices PrivateUsers ProtectClock".split()
MUST = os.environ.get("SANDRUN_SYSTEM_MUST_WORK") == "1"


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Section → key → its values in order (systemd.syntax(7))."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            sections.setdefault(section, {}).setdefault(key, []).append(value)
    return sections


def service(name: str) -> dict[str, list[str]]:
    return unit(name)["Service"]


def project(path: str) -> dict[str, Any]:
    return tomllib.loads((DEPLOY.parent / path / "pyproject.toml").read_text())["project"]


def tool(name: str) -> str:
    """A program; where nothing may be skipped, deploy/setup.sh --dev has made it available."""
    unpacked = [DEPLOY.parent / ".venv" / "tools" / folder / name for folder in ("usr/bin", "usr/sbin")]
    found = shutil.which(name) or next((str(path) for path in unpacked if path.exists()), None)
    if found is None and not MUST:
        pytest.skip(f"{name} is not installed")
    assert found is not None, f"{name} is not installed: run deploy/setup.sh --dev"
    return found


@pytest.mark.parametrize(("name", "folder"), [("api", "."), ("executor", "executor")])
def test_services_start_a_script_that_their_distribution_has(name: str, folder: str) -> None:
    assert service(f"sandrun-{name}.service")["ExecStart"] == [
        f"/opt/sandrun/current/{name}/bin/sandrun-{name}"
    ]
    assert f"sandrun-{name}" in project(folder)["scripts"]


def test_the_socket_is_where_both_look_for_it() -> None:
    socket = unit("sandrun-executor.socket")["Socket"]
    executor = Settings().executor
    assert socket["ListenSequentialPacket"] == [executor.socket]
    assert socket["SocketMode"] == ["0660"]
    assert (socket["SocketUser"], socket["SocketGroup"]) == (["root"], [executor.user])
    folder = Path(executor.socket).parent
    assert f"d {folder} 0750 root {executor.user} -" in (UNITS / "tmpfiles.conf").read_text().splitlines()
    assert service("sandrun-executor.service")["ReadWritePaths"] == [str(folder)]


def test_the_user_exists() -> None:
    user = Settings().executor.user
    assert service("sandrun-api.service")["User"] == service("sandrun-api.service")["Group"] == [user]
    assert re.search(rf"^u {user} ", (UNITS / "sysusers.conf").read_text(), re.MULTILINE)


def test_install_knows_every_unit() -> None:
    script = (DEPLOY / "install.sh").read_text()
    names = re.search(r"^readonly unit_names=\((.*)\)$", script, re.MULTILINE)
    assert names is not None
    assert set(names[1].split()) == {path.name for path in UNITS.glob("sandrun*")}


def test_cgroups_are_delegated_as_the_executor_expects() -> None:
    assert set(service("sandrun-executor.service")["Delegate"][0].split()) == set(v2.CONTROLLERS)
    assert service("delegate-subgroup.conf")["DelegateSubgroup"] == [v2.SUPERVISOR]


def test_the_executor_keeps_the_capabilities_it_asks_for() -> None:
    kept = {
        name for line in service("sandrun-executor.service")["CapabilityBoundingSet"] for name in line.split()
    }
    assert {f"CAP_{name}" for name in preflight.CAPABILITIES} <= kept
    assert "User" not in service("sandrun-executor.service")  # the unit says what systemd 257 makes of it


def test_nothing_of_the_executor_reaches_into_jobs_and_what_is_left_out_has_a_reason() -> None:
    text = (UNITS / "sandrun-executor.service").read_text()
    given = service("sandrun-executor.service")
    assert not set(FILTERS + BREAKING) & given.keys()
    reasons = text[text.index("# Left out") :]
    assert [name for name in FILTERS + BREAKING if name not in reasons] == []


def test_no_byte_is_swapped_or_dumped() -> None:
    for name in SERVICES:
        assert service(name)["MemorySwapMax"] == ["0"]
        assert service(name)["LimitCORE"] == ["0"]


def test_the_api_may_hold_what_the_settings_let_it_hold() -> None:
    (most,) = service("sandrun-api.service")["MemoryMax"]
    assert int(most.removesuffix("G")) << 10 >= Settings().limits.memory_budget_mb + 512


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_hangs_is_noticed_and_one_that_dies_comes_back(name: str) -> None:
    given = service(name)
    assert (given["Type"], given["Restart"], given["KillMode"]) == (["notify"], ["always"], ["mixed"])
    assert given["WatchdogSec"]
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_the_executors_environment_holds_the_three_libraries_that_it_imports() -> None:
    distribution = project("executor")
    names = {re.split("[>=]", item)[0] for item in distribution["dependencies"]}
    assert names == {"msgspec", "pynacl", "pyseccomp"}
    assert set(distribution["dependencies"]) <= set(project(".")["dependencies"])
    locked = (DEPLOY / "requirements-executor.lock").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE)
    assert set(pinned) - names == {"cffi", "pycparser"}  # what those need


def test_the_apis_environment_holds_the_rest() -> None:
    whole = {re.split("[>=]", item)[0] for item in project(".")["dependencies"]}
    locked = (DEPLOY / "requirements-api.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE))
    assert whole - pinned == {"pyseccomp"}
    # The executor has these run by what is installed there (trusted_paths.py), which knows its module too.
    assert {"nvidia-ml-py", "uv"} <= pinned
    whole_project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    wheel = whole_project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "executor/sandrun_executor" in wheel["packages"]


@pytest.mark.parametrize("name", ["api", "executor", "build"])
def test_environments_have_the_versions_that_are_tested(name: str) -> None:
    def pins(lock: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (DEPLOY / lock).read_text(), re.MULTILINE))

    tested = pins("requirements.lock")
    assert pins(f"requirements-{name}.lock").items() <= tested.items()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in UNITS.glob("sandrun*"):
        text = re.sub(r"/opt/sandrun/current/\w+/bin/[\w-]+", "/bin/true", path.read_text())
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_api_is_hardened(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=15"),
            str(UNITS / "sandrun-api.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_a_package_proxy(tmp_path: Path) -> None:
    examples = DEPLOY / "examples"
    for name in ("sandrun-packages.socket", "sandrun-packages@.service"):
        text = (examples / name).read_text()
        # Verified with a program that is there.
        changed = text.replace("/opt/sandrun/current/executor/bin/python", sys.executable)
        assert ("ExecStart" in text) == (changed != text)
        (tmp_path / name).write_text(changed.replace("#LoadCredential=", "LoadCredential="))
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", *tmp_path.iterdir()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    documented = (DEPLOY.parent / "docs" / "dependencies.md").read_text()
    assert 'package_proxy = "/run/sandrun/packages.sock"' in documented
    assert 'package_netrc = "packages.netrc"' in documented
    assert "\n#LoadCredential=packages.netrc:/" in (examples / "sandrun-packages@.service").read_text()
    assert (
        "ListenSequentialPacket=/run/sandrun/packages.sock"
        in (examples / "sandrun-packages.socket").read_text()
    )
    assert "-m sandrun_helpers.package_proxy" in (examples / "sandrun-packages@.service").read_text()


def test_nginx_takes_the_example(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-subj", "/CN=sandrun.example.org", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    example = (DEPLOY / "examples" / "nginx.conf").read_text()
    example = example.replace("/etc/ssl/certs/sandrun.pem", str(certificate))
    example = example.replace("/etc/ssl/private/sandrun.key", str(key))
    # nginx opens what it is to listen on while it tests.
    example = example.replace("listen 443 ssl", f"listen unix:{tmp_path}/a ssl")
    example = example.replace("listen [::]:443 ssl", f"listen unix:{tmp_path}/b ssl")
    assert str(certificate) in example
    assert example.count("listen unix:") == 2
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n"
        + "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"{example}}}\n"
    )
    done = subprocess.run(
        [tool("nginx"), "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_caddy_takes_the_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(tool("caddy"), "validate", "--adapter", "caddyfile"),
            *("--config", str(DEPLOY / "examples" / "Caddyfile")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tls.conf", "worker-key.conf"])
def test_examples_of_drop_ins_name_settings_that_exist(name: str) -> None:
    text = (DEPLOY / "examples" / name).read_text()
    example = "\n".join(re.findall(r"^#        (.*)$", text, re.MULTILINE))
    parsed = tomllib.loads(example)
    assert parsed
    defaults = Settings()
    for table, keys in parsed.items():
        for key, value in keys.items():
            assert isinstance(value, type(getattr(getattr(defaults, table), key)))
    loaded = {value.split(":")[0] for value in re.findall(r"^LoadCredential=(.*)$", text, re.MULTILINE)}
    named = {value for keys in parsed.values() for key, value in keys.items() if key != "host"}
    assert loaded == named


def test_alerts_and_dashboard_name_metrics_that_exist() -> None:
    source = (DEPLOY.parent / "api" / "sandrun_api" / "metrics.py").read_text()
    defined = set(re.findall(r'"(sandrun_[a-z_]+)"', source))
    assert defined
    known = {
        *defined,
        *(f"{name}_total" for name in defined),
        *(f"{name}_bucket" for name in defined),
    }
    dashboard = (DEPLOY / "monitoring" / "dashboard.json").read_text()
    alerts = (DEPLOY / "monitoring" / "alerts.yml").read_text()
    for text in (dashboard, alerts):
        used = set(re.findall(r"\bsandrun_[a-z_]+", text))
        assert used
        assert used <= known
    panels = json.loads(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])
