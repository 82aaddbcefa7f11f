"""Packages that a job needs: as a file of the upload that its `requirements` name."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sandrun_client.errors import InvalidUpload
from sandrun_client.models import JobOptions

PYTHON, NODE = "python3", "node"
REQUIREMENTS, PACKAGE_JSON = "requirements.txt", "package.json"
OWN_REQUIREMENTS = ".sandrun-requirements.txt"  # where a folder has a requirements.txt that is not meant
# A block of inline metadata: https://peps.python.org/pep-0723/#specification
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_NODE_PACKAGE = re.compile(r"(?P<name>@?[^@\s]+)(?:@(?P<version>\S+))?\Z")


def file_of(packages: Sequence[str], language: str, taken: Sequence[str] = ()) -> tuple[str, bytes]:
    """The name and the content of a file that names these packages, as pip or npm would take them.

    language is the canonical name of the program's; taken are names that the upload has. Raises
    InvalidUpload.
    """
    if any("\n" in name or not name.strip() for name in packages):
        raise InvalidUpload("A package's name is empty, or more than one line.")
    if language == PYTHON:
        name = REQUIREMENTS if REQUIREMENTS not in taken else OWN_REQUIREMENTS
        return name, "".join(f"{package}\n" for package in packages).encode()
    if language != NODE:
        raise InvalidUpload(f"Packages can be named for Python and Node, not for {language or 'this file'}.")
    if PACKAGE_JSON in taken:
        raise InvalidUpload(f"There is a {PACKAGE_JSON} already: name the packages in it.")
    found = [_NODE_PACKAGE.match(package.strip()) for package in packages]
    wanted = {item["name"]: item["version"] or "*" for item in found if item is not None}
    if None in found:
        raise InvalidUpload("A package of Node is named NAME or NAME@VERSION.")
    return PACKAGE_JSON, json.dumps({"private": True, "dependencies": wanted}).encode()


def split(options: JobOptions) -> tuple[list[str], JobOptions]:
    """The packages of some options, and the rest. Raises InvalidUpload for packages and `requirements`."""
    packages = list(options.get("packages") or ())
    if packages and options.get("requirements"):
        raise InvalidUpload("Give either `packages` or `requirements`.")
    rest = options.copy()
    rest.pop("packages", None)
    return packages, rest


def added(
    options: JobOptions, language: str, files: Mapping[str, Any]
) -> tuple[JobOptions, dict[str, bytes]]:
    """The options as the server takes them, and the file that they need besides. Raises InvalidUpload."""
    packages, rest = split(options)
    if not packages:
        return rest, {}
    name, content = file_of(packages, language, tuple(files))
    return JobOptions(**{**rest, "requirements": name}), {name: content}


def of_script(code: bytes) -> list[str]:
    """What a Python program says that it needs in a `# /// script` block (PEP 723). Raises InvalidUpload."""
    if b"# ///" not in code:
        return []
    text = code.decode("utf-8", "replace").replace("\r\n", "\n")
    blocks = [found for found in _BLOCK.finditer(text) if found["type"] == "script"]
    if len(blocks) > 1:
        raise InvalidUpload("There is more than one `# /// script` block in the program.")
    if not blocks:
        return []
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines()]
    try:
        wanted = tomllib.loads("\n".join(lines)).get("dependencies", [])
    except ValueError as error:
        raise InvalidUpload(f"The `# /// script` block of the program is not TOML: {error}.") from None
    if not isinstance(wanted, list) or not all(isinstance(item, str) for item in wanted):
        raise InvalidUpload("The dependencies in the `# /// script` block are not a list of texts.")
    return wanted


def noticed(entrypoint: str, read: Mapping[str, bytes]) -> str | None:
    """Which of the files at the top of a folder names packages for its entrypoint; None for no such file."""
    suffix = PurePosixPath(entrypoint).suffix
    if suffix == ".py" and (text := read.get(REQUIREMENTS)) is not None:
        lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
        return REQUIREMENTS if any(line and not line.startswith("#") for line in lines) else None
    if suffix in (".js", ".mjs", ".cjs") and (text := read.get(PACKAGE_JSON)) is not None:
        try:
            document = json.loads(text)
        except ValueError:
            return None
        wanted = document.get("dependencies") if isinstance(document, dict) else None
        return PACKAGE_JSON if wanted else None
    return None
