"""Write docs/configuration.md from the settings' own help texts: python docs/generate_configuration.py"""

from pathlib import Path
from typing import get_args, get_type_hints

import msgspec

from sandrun_shared import settings

TARGET = Path(__file__).with_name("configuration.md")
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


if __name__ == "__main__":
    TARGET.write_text(render())
