"""Files that settings name by a path or as a systemd credential (systemd.exec(5))."""

import os
from collections.abc import Mapping
from pathlib import Path

from sandrun_shared.settings import SettingsError

FOLDER = "CREDENTIALS_DIRECTORY"  # the variable that names the folder of credentials


def locate(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Locate the file of a setting: a path or, if it has no `/`, the name of a credential.

    Raises SettingsError for a credential if the process has no credentials.
    """
    if "/" in name:
        return Path(name)
    folder = environ.get(FOLDER)
    if not folder:
        raise SettingsError(f"{name}: neither a path with a / in it nor, without systemd, a credential")
    return Path(folder, name)
