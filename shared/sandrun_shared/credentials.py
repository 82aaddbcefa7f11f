"""Files that settings name: by a path, or as a credential that systemd hands over (systemd.exec(5))."""

import os
from collections.abc import Mapping
from pathlib import Path

from sandrun_shared.settings import SettingsError

FOLDER = "CREDENTIALS_DIRECTORY"  # the variable that names it


def locate(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The file of a setting: a path, or without a `/` in it the name of a credential.

    Raises SettingsError for a credential where there are none.
    """
    if "/" in name:
        return Path(name)
    folder = environ.get(FOLDER)
    if not folder:
        raise SettingsError(f"{name}: neither a path with a / in it nor, without systemd, a credential")
    return Path(folder, name)
