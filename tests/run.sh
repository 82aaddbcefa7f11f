#!/bin/bash
# Set everything up and run every test; arguments go to pytest (tests/run.sh -k framing).
set -euo pipefail
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$("$here/../deploy/setup.sh" --dev </dev/null)

cd -- "$root"
# What cannot run here must fail, not be skipped.
export SANDRUN_SYSTEM_MUST_WORK=1 PYTHONDONTWRITEBYTECODE=1
exec .venv/bin/python -P -m pytest --ignore=tests/bench "$@" </dev/null
