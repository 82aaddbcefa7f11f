#!/bin/bash
# Fill a folder with every wheel that an installation needs, for this machine's Python: the two
# distributions of this checkout and, checked against the lock files, what they depend on.
#   deploy/wheels.sh FOLDER         needs the package index; `deploy/install.sh --wheels FOLDER` then does not
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

say() { printf 'wheels: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $# -eq 1 && $1 != -* ]] || die "usage: deploy/wheels.sh FOLDER"
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
mkdir -p -- "$1"
target=$(cd -- "$1" && pwd -P)
readonly python=/usr/bin/python3
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# Equal sources make equal wheels, whatever the time.
export SOURCE_DATE_EPOCH=1580601600

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
"$python" -m venv "$work/venv" || die "needs the package python3-venv"
pip=("$work/venv/bin/python" -I -m pip)

say "collecting what deploy/requirements-*.lock name"
for lock in executor api; do
    "${pip[@]}" download --quiet --no-deps --require-hashes --only-binary :all: --dest "$target" \
        -r "$here/requirements-$lock.lock" >&2
done
say "building the project"
"${pip[@]}" install --quiet --no-deps --require-hashes --only-binary :all: -r "$here/requirements-build.lock" >&2
rm -f -- "$target"/sandrun_*.whl
for folder in "$here/.." "$here/../executor"; do
    "${pip[@]}" wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir "$target" "$folder" >&2
done
