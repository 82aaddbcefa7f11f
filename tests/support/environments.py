"""An environment made of one small wheel that is written here: it needs no network."""

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from sandrun_admin import builds
from sandrun_shared import environments

BUILD_UID = 1_999_999


def wheel(folder: Path, version: str = "1.0", code: str = "value = 1", **more: str) -> str:
    """Write a wheel of the package `one`, with .pth files by name; its SHA-256 in hex."""
    files = {
        "one/__init__.py": code,
        "one/rarely.py": f"version = {version!r}",
        **{f"{name}.pth": text for name, text in more.items()},
        f"one-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: one\nVersion: {version}\n",
        f"one-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}\n")
    files[f"one-{version}.dist-info/RECORD"] = "".join(lines) + f"one-{version}.dist-info/RECORD,,\n"
    path = folder / f"one-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Place:
    """A definition of `mine`, the wheel it needs, and where it is built."""

    def __init__(self, folder: Path) -> None:
        self.wheels, self.own, self.built = folder / "wheels", folder / "own", folder / "built"
        for path in (self.wheels, self.own):
            path.mkdir()
        self.path = self.own / "mine.toml"
        self.define()
        self.lock(wheel(self.wheels))
        self.said: list[str] = []

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which uv finds the wheels and nothing else."""
        return {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(self.wheels)}

    def define(self, more: str = "") -> None:
        text = f'description = "Mine"\npackages = ["one"]\nmodules = ["one"]\n{more}'
        self.path.write_text(text)
        self.definition = environments.load(self.path)

    def lock(self, digest: str, version: str = "1.0") -> None:
        pin = f"one=={version} --hash=sha256:{digest}\n"
        environments.lock_path(self.path).write_text(environments.lock_header(self.definition) + pin)

    def build(self) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            return builds.build(
                "mine", self.definition, self.path, self.built, self.said.append, uid=BUILD_UID
            )

    def folders(self) -> list[str]:
        return sorted(path.name for path in (self.built / "mine").iterdir())
