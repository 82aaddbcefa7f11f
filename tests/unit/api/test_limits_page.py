"""The table of limits in docs/quotas.md says what the code does."""

import re
from pathlib import Path

import pytest

from sandrun_api.edge import messages, middleware
from sandrun_api.jobs import idempotency, manifest, requirements, run_routes
from sandrun_api.uploads import contents, multipart
from sandrun_shared.archives import names
from sandrun_shared.settings import Api, JobLimits

PAGE = (Path(__file__).parents[3] / "docs" / "quotas.md").read_text()
TABLE = PAGE.partition("## How much a request may hold")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| (.+?) \| (.+?) \| \d+ \|$", TABLE, re.MULTILINE))
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}
LIMITS = {
    "a run": run_routes.BODY_BYTES,
    "an upload": Api().upload_bytes,
    "a manifest": contents.MANIFEST_BYTES,
    "`stdin`": manifest.STDIN_BYTES,
    "`args` and `env`": manifest.ARGUMENT_BYTES,
    "patterns of `outputs`": manifest.MAX_PATTERNS,
    "files in `files`": run_routes.MAX_FILES,
    "files or members": Api().archive_members,
    "what an upload unpacks to": JobLimits().disk_mb << 20,
    "a path": names.MAX_PATH,
    "a name in a path": names.MAX_COMPONENT,
    "a requirements' file": requirements.FILE_BYTES,
    "the header fields of a part": multipart.HEAD_BYTES,
    "the boundary": multipart.BOUNDARY_BYTES,
    "the request line and headers": Api().head_bytes,
    "the address": middleware.TARGET_BYTES,
    "extensions of chunks": messages.EXTENSION_BYTES,
    "an `Idempotency-Key`": int(re.findall(r"\d+", idempotency.KEY_PATTERN)[-1]),
}


def test_every_row_is_known() -> None:
    assert len(ROWS) == len(LIMITS) == TABLE.count("\n| ") - 1
    assert [what for what in ROWS if sum(what.startswith(name) for name in LIMITS) != 1] == []


@pytest.mark.parametrize("name", LIMITS)
def test_the_number_of_a_row(name: str) -> None:
    row = next(text for what, text in ROWS.items() if what.startswith(name))
    number, unit = re.findall(r"(\d+)(?: (KiB|MiB))?", row)[-1]
    assert int(number) * UNITS.get(unit, 1) == LIMITS[name]


def test_what_a_run_takes_a_submission_takes() -> None:
    assert contents.MANIFEST_BYTES >= run_routes.BODY_BYTES
