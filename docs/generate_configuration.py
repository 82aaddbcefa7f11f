"""Write docs/configuration.md and deploy/sandrun.toml from the settings' own help texts.

python docs/generate_configuration.py
"""

import textwrap
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from sandrun_shared import settings

TARGET = Path(__file__).with_name("configuration.md")
EXAMPLE = Path(__file__).parents[1] / "deploy" / "sandrun.toml"
HEAD = """\
# Configuration

<!-- Written by docs/generate_configuration.py; edit shared/sandrun_shared/settings.py instead. -->

Settings come from `/etc/sandrun/sandrun.toml` (if there is one) or from the file given with `--config`.
Every key is also an environment variable, `SANDRUN_<TABLE>__<KEY>`, which wins over the file:
`SANDRUN_API__PORT=9000` is `port = 9000` in the table `[api]`. An unknown key, a wrong type or a value
out of range ends the start with a message that names it.
"""


def render() -> str:
    """The whole page."""
    return "\n".join(
        [HEAD, *(_table(name, kind) for name, kind in get_type_hints(settings.Settings).items())]
    )


def _table(name: str, kind: type[msgspec.Struct]) -> str:
    lines = [f"## `[{name}]`", "", (kind.__doc__ or "").strip(), "", "| key | default | what it does |"]
    lines.append("|---|---|---|")
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        _, meta = get_args(hints[field.name])
        default = msgspec.json.encode(field.default).decode()
        lines.append(f"| `{field.name}` | `{default}` | {meta.description} |")
    return "\n".join([*lines, ""])


EXAMPLE_HEAD = """\
# Settings of Sandrun; every line that begins with one # and no space is a default that can be changed.
# Afterwards: systemctl restart sandrun.target (jobs that run may end first).
# An unknown key, a wrong type or a value out of range ends the start with a message that names it.
"""


def render_example() -> str:
    """The file that an installation gets as /etc/sandrun/sandrun.toml: every default, commented."""
    return "\n".join(
        [EXAMPLE_HEAD, *(_example(name, kind) for name, kind in get_type_hints(settings.Settings).items())]
    )


def _example(name: str, kind: type[msgspec.Struct]) -> str:
    lines = [*_comment((kind.__doc__ or "").strip()), f"[{name}]"]
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        _, meta = get_args(hints[field.name])
        lines += ["", *_comment(meta.description), f"#{field.name} = {_toml(field.default)}"]
    return "\n".join([*lines, ""])


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 108)]


def _toml(value: Any) -> str:
    """A default as TOML: what JSON and TOML write alike."""
    if not isinstance(value, (bool, int, float, str, tuple, list)):
        raise TypeError(f"no way to write {value!r}")
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    TARGET.write_text(render())
    EXAMPLE.write_text(render_example())
