"""A wrong setting is told with the variable or the line that has it, and the name that was meant."""

from pathlib import Path

import pytest

from sandrun_shared import settings


@pytest.mark.parametrize(
    ("text", "environ", "told"),
    [
        (
            "[executor]\n# a\nsoket = 'a'",
            {},
            "FILE:3: [executor] has no setting 'soket'. Did you mean 'socket'?",
        ),
        (
            "",
            {"SANDRUN_EXECUTOR__SOKET": "a"},
            "SANDRUN_EXECUTOR__SOKET: [executor] has no setting 'soket'. Did",
        ),
        (
            "[executr]\nsocket = 'a'",
            {},
            "FILE:1: there is no table 'executr'; there are api, access, quota, limits, exec",
        ),
        ("", {"SANDRUN_EXECUTR__SOCKET": "a"}, "SANDRUN_EXECUTR__SOCKET: there is no table 'executr'"),
        ("[api]\n\nport = 'x'", {}, "FILE:3: [api] port must be a whole number."),
        ("api.port = 'x'", {}, "FILE:1: [api] port must be a whole number."),
        ("", {"SANDRUN_API__PORT": "70000"}, "SANDRUN_API__PORT: [api] port must be at most 65535."),
        (
            "[api]\nport = 1",
            {"SANDRUN_API__PORT": "x"},
            "SANDRUN_API__PORT: [api] port must be a whole number.",
        ),
        ("[executor]\nslots = 0", {}, "FILE:2: [executor] slots must be at least 1."),
        ("[executor]\nwipe_memory = 'x'", {}, "FILE:2: [executor] wipe_memory must be true or false."),
        ("[api]\nadapters = ['piston', 'x']", {}, "FILE:2: [api] adapters takes piston, judge0, not 'x'."),
        ("[api]\nadapters = 3", {}, "FILE:2: [api] adapters must be a list."),
        (
            "[executor]\npackage_hosts = 'A B'",
            {},
            "FILE:2: [executor] package_hosts must be written otherwise",
        ),
        ("api = 3", {"SANDRUN_API__PORT": "1"}, "FILE:1: api must be a table."),
        ("[api", {}, "FILE: Expected ']'"),
    ],
)
def test_faults(tmp_path: Path, text: str, environ: dict[str, str], told: str) -> None:
    path = tmp_path / "sandrun.toml"
    path.write_text(text)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(path, environ)
    assert str(caught.value).startswith(told.replace("FILE", str(path)))
    assert "$." not in str(caught.value)  # nobody wrote such a path


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="none cannot be read: No such file or directory"):
        settings.load(tmp_path / "none", {})


def test_where_each_setting_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "sandrun.toml"
    path.write_text("[api]\nport = 1\nhost = 'x'\n")
    _, origins = settings.load_with_origins(path, {"SANDRUN_API__PORT": "2"})
    assert origins.set_by("api", "port") == "SANDRUN_API__PORT"
    assert origins.set_by("api", "host") == f"{path}:3"
    assert origins.set_by("api", "key") is None
