"""/etc/sandrun/sandrun.toml as it is installed: every default, commented, and nothing else."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import msgspec

from sandrun_shared import settings

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "deploy" / "sandrun.toml"


def generator() -> ModuleType:
    path = ROOT / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_current() -> None:
    assert EXAMPLE.read_text() == generator().render_example(), "run python docs/generate_configuration.py"


def test_as_installed_it_sets_nothing() -> None:
    assert all(table == {} for table in tomllib.loads(EXAMPLE.read_text()).values())
    assert settings.load(EXAMPLE, {}) == settings.Settings()


def test_with_every_comment_taken_off_it_says_the_defaults() -> None:
    text = re.sub(r"^#(?=\S)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    said = tomllib.loads(text)
    defaults = msgspec.json.encode(settings.Settings())  # a list where a tuple is kept, as TOML has it
    assert said == msgspec.json.decode(defaults)
