"""The definitions that are shipped, their locks, and what makes either unusable."""

import re
from pathlib import Path

import msgspec
import pytest

from sandrun_shared import environments
from sandrun_shared.environments import Definition, DefinitionError

ROOT = Path(__file__).parents[3]
FILES = environments.definition_files("/nonexistent")
LOCK = """{header}one==1.0 \\
    --hash=sha256:{hash}
"""


def test_the_shipped_ones() -> None:
    assert environments.shipped_folder() == ROOT / "deploy" / "environments"
    assert set(FILES) == {"default", "agent", "ml-basic", "vision", "nlp", "data-science", "scientific"}


def test_default_needs_no_build() -> None:
    definition = environments.load(FILES["default"])
    assert not definition.packages
    assert not definition.modules


@pytest.mark.parametrize("name", FILES)
def test_lock_is_current_and_complete(name: str) -> None:
    definition = environments.load(FILES[name])
    lock = environments.read_lock(definition, FILES[name])
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    assert {package.lower() for package in definition.packages} <= pinned
    assert "torch" not in pinned


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_an_operators_own_stands_for_a_shipped_one(tmp_path: Path) -> None:
    own = write(tmp_path, 'description = "x"', "nlp")
    write(tmp_path, 'description = "x"', ".hidden")
    files = environments.definition_files(str(tmp_path))
    assert files["nlp"] == own
    assert files.keys() == FILES.keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        'description = "x"\nunknown = 1',
        'description = "x"\ninterpreter = "node"',
        'description = "x"\npackages = ["--index-url=http://x"]',
        'description = "x"\npackages = ["name @ https://x/y.whl"]',
        'description = "x"\npackages = ["../here"]',
        'description = "x"\nmodules = ["a; import b"]',
        'description = "x"\nvariables = {"A=B" = "x"}',
        'description = "x"\nvariables = {A = "\\u0000"}',
        'description = "x',
    ],
)
def test_a_definition_that_is_none(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DefinitionError, match=str(path)):
        environments.load(path)


def test_the_headline_is_what_a_definition_asks_for_in_its_order() -> None:
    packages = ("numpy==2.4.6", "pandas==3.1.1", "ruamel-yaml==1.0", "six==1.17.0")
    asked = ("Ruamel_YAML[jinja2] >=0.9", "pandas>=3,<4", "absent", "pandas")
    assert environments.headline(asked, packages) == ("ruamel-yaml==1.0", "pandas==3.1.1")


def test_a_stale_lock_fails(tmp_path: Path) -> None:
    path = write(tmp_path, 'description = "x"\npackages = ["one"]')
    definition = environments.load(path)
    with pytest.raises(DefinitionError, match="sandrun env lock"):
        environments.read_lock(definition, path)
    header = environments.lock_header(definition)
    environments.lock_path(path).write_text(LOCK.format(header=header, hash="0" * 64))
    assert environments.read_lock(definition, path)
    write(tmp_path, 'description = "another text changes no package"\npackages = ["one"]')
    assert environments.read_lock(environments.load(path), path)
    write(tmp_path, 'description = "x"\npackages = ["one>1.0"]')
    with pytest.raises(DefinitionError, match="stale"):
        environments.read_lock(environments.load(path), path)


def test_a_lock_without_a_hash_fails(tmp_path: Path) -> None:
    path = write(tmp_path, 'description = "x"\npackages = ["one"]')
    definition = environments.load(path)
    environments.lock_path(path).write_text(environments.lock_header(definition) + "one==1.0\n")
    with pytest.raises(DefinitionError, match=r"one==1\.0"):
        environments.read_lock(definition, path)


def test_another_lock_interpreter_or_module_is_another_build() -> None:
    definition = Definition("x", packages=("one",), variables={"A": "1", "B": "2"})
    digest = environments.digest_of(definition, "lock", "3.11.2")
    turned = msgspec.structs.replace(definition, variables={"B": "2", "A": "1"})
    assert environments.digest_of(turned, "lock", "3.11.2") == digest
    others = {
        environments.digest_of(definition, "other", "3.11.2"),
        environments.digest_of(definition, "lock", "3.11.3"),
        environments.digest_of(msgspec.structs.replace(definition, modules=("one",)), "lock", "3.11.2"),
    }
    assert len(others | {digest}) == 4


def test_current_believes_only_a_digest(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    link = tmp_path / "one" / environments.CURRENT
    assert environments.current(tmp_path, "one") == ""
    link.symlink_to("../../etc")
    assert environments.current(tmp_path, "one") == ""
    link.unlink()
    link.symlink_to("0" * 16)
    assert environments.current(tmp_path, "one") == "0" * 16
