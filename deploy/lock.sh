#!/bin/bash
# Rewrite the lock files from pyproject.toml and executor/pyproject.toml: every version pinned, every file by its hash.
#   deploy/lock.sh [--upgrade]      needs `uv`; run it when dependencies change
set -euo pipefail
umask 022
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || { echo "lock.sh: uv is not installed" >&2; exit 1; }

compile() { # OUTPUT uv argument...
    local output=$1
    shift
    # Written for the oldest Python that Sandrun runs on; --universal adds markers for the newer ones.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-annotate --no-header --output-file "$output" "$@"
}

# The first includes the build backend, which installing the checkout needs.
compile deploy/requirements.lock --group build "$@" pyproject.toml
# Constrained by the first, so that tests run with the versions that are served.
compile deploy/requirements-dev.lock --group dev --constraints deploy/requirements.lock "$@" pyproject.toml
# An installation has one virtual environment for each service, and neither holds what builds the project.
compile deploy/requirements-executor.lock --constraints deploy/requirements.lock "$@" executor/pyproject.toml
compile deploy/requirements-api.lock --constraints deploy/requirements.lock \
    --no-emit-package pyseccomp "$@" pyproject.toml
compile deploy/requirements-build.lock --constraints deploy/requirements.lock --group build "$@"
compile deploy/requirements-streamlit.lock --no-deps --group streamlit "$@"
