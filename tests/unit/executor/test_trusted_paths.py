"""Where the daemon finds the programs that it runs, which the api's user must not be able to change."""

import os
import pwd
import sys
from pathlib import Path

import pytest

from sandrun_executor import trusted_paths

USER = 4711


def make_venv(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("")
    return folder


def test_they_are_in_the_apis_environment_of_the_same_release(tmp_path: Path) -> None:
    own = make_venv(tmp_path / "1.0" / "executor")
    make_venv(tmp_path / "2.0" / "api")
    assert trusted_paths.venv(own) == own
    assert trusted_paths.venv(own) != (api := make_venv(tmp_path / "1.0" / "api"))
    assert trusted_paths.venv(own) == api


def test_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, api = (make_venv(tmp_path / name) for name in ("executor", "api"))
    (own / "bin" / "uv").write_text("")  # not from here
    (api / "bin" / "uv").write_text("")
    monkeypatch.setattr(sys, "prefix", str(own))
    assert (trusted_paths.python(), trusted_paths.find_uv()) == (f"{api}/bin/python", f"{api}/bin/uv")


def test_in_a_checkout_they_are_in_its_only_environment() -> None:
    assert trusted_paths.python() == sys.executable
    assert trusted_paths.find_uv() == str(Path(sys.prefix, "bin", "uv"))


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_place_that_the_user_can_change_is_found(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir()
    program = folder / "program"
    program.write_text("")
    groups = [tmp_path.stat().st_gid]
    assert trusted_paths.changeable(program, USER, groups) is None
    folder.chmod(mode)
    assert trusted_paths.changeable(program, USER, groups) == folder
    folder.chmod(0o755)
    program.chmod(mode)
    assert trusted_paths.changeable(program, USER, groups) == program
    assert (trusted_paths.changeable(program, USER, []) is None) == (
        mode == 0o775
    )  # a group the user is not in
    assert trusted_paths.changeable(tmp_path, tmp_path.stat().st_uid, []) == tmp_path  # its own


def test_a_link_is_as_good_as_what_it_leads_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "program").write_text("")
    (tmp_path / "link").symlink_to(loose / "program")
    assert trusted_paths.changeable(tmp_path / "link", USER, []) == loose


def test_the_owner_of_the_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = pwd.getpwuid(os.getuid())
    other = pwd.struct_passwd((*owner[:2], os.getuid() or USER, *owner[3:]))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: other)
    monkeypatch.setattr(trusted_paths, "find_uv", lambda: str(program))
    program = tmp_path / "uv"
    program.write_text("")
    os.chmod(program, 0o777)
    with pytest.raises(trusted_paths.HelperError, match="can change") as caught:
        trusted_paths.check(owner.pw_name)
    assert "only root" in str(caught.value)
