"""Files that settings name."""

from pathlib import Path

import pytest

from sandrun_shared.credentials import locate
from sandrun_shared.settings import SettingsError


def test_a_name_is_that_of_a_credential_and_a_path_is_a_path() -> None:
    environ = {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}
    assert locate("key", environ) == Path("/run/credentials/x/key")
    assert locate("/etc/key", environ) == Path("/etc/key")
    assert locate("./key", {}) == Path("key")
    with pytest.raises(SettingsError, match="credential"):
        locate("key", {})
