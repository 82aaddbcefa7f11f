"""One frozen object from a file and the environment, with errors that name the key."""

from pathlib import Path

import msgspec
import pytest

from sandrun_shared import jobs, settings


def write(folder: Path, text: str) -> Path:
    path = folder / "sandrun.toml"
    path.write_text(text)
    return path


def test_defaults_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "DEFAULT_PATH", tmp_path / "none.toml")
    assert settings.load(None, {}) == settings.Settings()


def test_file_then_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "[api]\nport = 1\nhost = '::1'\n[quota]\njobs_per_hour = 0\n")
    loaded = settings.load(path, {"SANDRUN_API__PORT": "2", "SANDRUN_QUOTA__CPU_SECONDS_PER_MINUTE": "2.5"})
    assert (loaded.api.port, loaded.api.host) == (2, "::1")
    assert (loaded.quota.jobs_per_hour, loaded.quota.cpu_seconds_per_minute) == (0, 2.5)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[api]\nport = 70000\n", "port"),
        ("[api]\nport = 'x'\n", "port"),
        ("[api]\nports = 1\n", "ports"),
        ("[apis]\n", "apis"),
        ("[limits]\nprocesses = -1\n", "processes"),
        # A setting of 0.1.0.
        ("[executor]\nstarted_interpreters = ['node']\n", "has no setting 'started_interpreters'"),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(settings.SettingsError, match=key):
        settings.load(write(tmp_path, text), {})


def test_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "[api]\nadapters = ['judge0']\n")
    assert settings.load(path, {}).api.adapters == ("judge0",)
    assert settings.load(path, {"SANDRUN_API__ADAPTERS": "piston, judge0"}).api.adapters == (
        "piston",
        "judge0",
    )
    assert settings.load(path, {"SANDRUN_API__ADAPTERS": ""}).api.adapters == ()
    with pytest.raises(settings.SettingsError, match="adapters"):
        settings.load(path, {"SANDRUN_API__ADAPTERS": "jenkins"})


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="absent"):
        settings.load(tmp_path / "absent.toml", {})
    with pytest.raises(settings.SettingsError, match=r"sandrun\.toml"):
        settings.load(write(tmp_path, "[[["), {})


def test_unknown_variable_of_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="nonsense"):
        settings.load(write(tmp_path, ""), {"SANDRUN_API__NONSENSE": "1"})


def test_variables_without_a_table_are_not_settings(tmp_path: Path) -> None:
    environ = {"SANDRUN_URL": "x", "SANDRUN_SYSTEM_MUST_WORK": "1", "PATH": "/bin"}
    assert settings.load(write(tmp_path, ""), environ) == settings.Settings()


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        settings.Settings().api.port = 1  # type: ignore[misc]


def test_every_key_has_a_help_text() -> None:
    schema = msgspec.json.schema(settings.Settings)["$defs"]
    for table in ("Api", "Quota", "JobLimits", "Executor"):
        for key, value in schema[table]["properties"].items():
            assert value.get("description", "").endswith("."), key


def test_a_default_above_the_maximum_is_the_maximum() -> None:
    """For the job that asks for nothing and for the sandbox that is kept ready for it alike."""
    limits = settings.JobLimits(timeout_seconds=300, max_timeout_seconds=60, memory_mb=512, max_memory_mb=256)
    assert (limits.default().wall_seconds, limits.default().memory_bytes) == (60.0, 256 << 20)
    assert limits.granted(timeout_seconds=1.5, memory_mb=64, cpu_seconds=2.5) == msgspec.structs.replace(
        limits.default(), wall_seconds=1.5, memory_bytes=64 << 20, cpu_seconds=2.5
    )


def test_the_settings_have_the_defaults_of_a_job() -> None:
    assert settings.JobLimits().default() == jobs.Limits()


def test_lists_are_separated_by_commas() -> None:
    assert settings.words(" a, b ,,c,") == ("a", "b", "c")
    assert [str(item) for item in settings.networks("10.0.0.0/8, ::1", "x.y")] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(settings.SettingsError, match=r"^x\.y: .*10\.0\.0\.1/8"):
        settings.networks("192.0.2.1,10.0.0.1/8", "x.y")
