"""`sandrun up` and `sandrun doctor`: what can be said without starting a service."""

import json
import socket
import sys
from pathlib import Path

import pytest

from sandrun_admin import cli, doctor, up


def test_services_see_only_settings() -> None:
    environ = {
        "SECRET": "x",
        "HOME": "/root",
        "SANDRUN_API__PORT": "1",
        "SANDRUN_URL": "x",
        "LD_PRELOAD": "y",
    }
    child = up.child_environment(environ)
    assert child["SANDRUN_API__PORT"] == "1"
    assert not {"SECRET", "HOME", "SANDRUN_URL", "LD_PRELOAD"} & child.keys()


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],
)
def test_url(host: str, address: str) -> None:
    assert up.url(host, 1) == address


def test_restart_delay_grows_to_a_bound_and_starts_over() -> None:
    delays = [0.0]
    for _ in range(10):
        delays.append(up.restart_delay(0.0, delays[-1]))
    assert delays[1] == up.FIRST_DELAY_SECONDS
    assert delays == sorted(delays)
    assert delays[-1] == up.LONGEST_DELAY_SECONDS
    assert up.restart_delay(up.STEADY_SECONDS, delays[-1]) == up.FIRST_DELAY_SECONDS


def test_port_in_use_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDRUN_EXECUTOR__USER", "root")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SystemExit) as ended:
        cli.main(["up", "--port", str(server.getsockname()[1])])
    assert ended.value.code == cli.FAILED
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SANDRUN_EXECUTOR__USER", "no-such-user", "no-such-user"),
        ("SANDRUN_API__PORT", "x", "port"),
        ("SANDRUN_API__PORT", "0", "needs a port"),
    ],
)
def test_up_says_what_is_wrong(
    variable: str,
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SANDRUN_EXECUTOR__USER", "root")
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["up"])
    assert ended.value.code == cli.FAILED
    assert message in capsys.readouterr().err


def test_up_needs_root(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit):
        cli.main(["up"])
    assert "root" in capsys.readouterr().err


def test_table_names_each_remedy() -> None:
    fine = doctor.Check("kernel", True, True, "Linux 6.1", "")
    advice = doctor.Check("Landlock", False, False, "none", "boot with it")
    missing = doctor.Check("cgroup", False, True, "none", "mount it")
    assert doctor.table([fine, advice]).endswith("Jobs can run safely here.")
    text = doctor.table([fine, missing])
    assert "-> mount it" in text
    assert text.endswith("jobs cannot run safely here.")


def test_the_executor_of_an_installation_has_an_interpreter_of_its_own(tmp_path: Path) -> None:
    ours = tmp_path / "api"
    assert doctor.executor_python(str(ours)) == sys.executable
    python = tmp_path / "executor" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert doctor.executor_python(str(ours)) == str(python)


def test_what_needs_root_names_the_whole_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/sandrun")

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sandrun_admin.builds.build", refused)
    with pytest.raises(SystemExit) as ended:
        cli.main(["env", "build", "ml-basic"])
    assert ended.value.code == cli.FAILED
    assert capsys.readouterr().err == "sandrun: needs root: sudo sandrun env build ml-basic\n"
    with pytest.raises(SystemExit):
        cli.main(["up", "--port", "1"])
    assert "needs root: sudo sandrun up --port 1 (" in capsys.readouterr().err


def test_an_environment_that_cannot_be_built_is_a_failure_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise cli.BuildError("no room")

    monkeypatch.setattr("sandrun_admin.builds.build", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main(["env", "build", "ml-basic", "--json"])
    assert ended.value.code == cli.FAILED
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"done": {}, "failed": {"ml-basic": "no room"}}
    assert "[Errno" not in captured.err


def test_settings_are_checked_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sandrun.toml"
    path.write_text("[quota]\njobs_per_hour = 7\n")
    monkeypatch.setenv("SANDRUN_API__PORT", "9")

    def answer(*words: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--config", str(path)])
        return ended.value.code, capsys.readouterr().out

    code, text = answer("config", "check")
    assert (code, text) == (0, f"The settings are valid: {path}, 2 of them not the default.\n")
    code, text = answer("config", "show", "--changed", "--json")
    assert json.loads(text) == [
        {"name": "api.port", "value": 9, "origin": "SANDRUN_API__PORT"},
        {"name": "quota.jobs_per_hour", "value": 7, "origin": f"{path}:2"},
    ]
    code, text = answer("config", "show", "quota.queued_jobs")
    assert (code, text.split()) == (0, ["quota.queued_jobs", "10", "default"])
    path.write_text("[quota]\njobs_per_hor = 7\n")
    code, text = answer("config", "check", "--json")
    assert code == cli.FAILED
    assert "Did you mean 'jobs_per_hour'?" in json.loads(text)["reason"]


def test_doctor_in_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = doctor.Check("cgroup", False, True, "none", "mount it")
    monkeypatch.setattr(doctor, "_executor_checks", lambda _: [missing])
    monkeypatch.setattr(doctor, "_running", lambda _: [])
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json"])
    assert ended.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["safe"], document["checks"][-1]["mend"]) == (False, "mount it")
