#!/bin/bash
# Fill a folder for the test machine, whose Python is its own whatever this host's is.
#   tests/vm/wheels.sh FOLDER    wheels/: what deploy/install.sh --wheels needs; site/: what tests import besides
# What comes from the package index is checked against the lock files and kept in $SANDRUN_VM_CACHE.
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd -- "$here/../.." && pwd -P)
given=${1:?the folder to fill}
case ${SANDRUN_VM_SUITE:-bookworm} in
    bookworm) version=3.11 ;;
    trixie) version=3.13 ;;
    *) echo "wheels.sh: which Python has $SANDRUN_VM_SUITE?" >&2; exit 2 ;;
esac
readonly tests=(
    anyio certifi h11 httpcore httpx hypothesis idna iniconfig packaging pluggy pygments pytest
    pytest-timeout sortedcontainers typing-extensions
)

cache=${SANDRUN_VM_CACHE:-/var/cache/sandrun-vm}
mkdir -p -- "$cache" 2>/dev/null && [[ -w $cache ]] || cache=/tmp/sandrun-vm
mkdir -p -- "$cache"
key=$({ echo "$version"; cat "$here/wheels.sh" "$root"/deploy/requirements-{executor,api,build,dev}.lock; } | sha256sum | cut -c 1-12)
kept=$cache/wheels-$key
exec {lock}>"$cache/lock-wheels"
flock "$lock"
find "$cache" -mindepth 1 -maxdepth 1 -name 'wheels-*' -mtime +14 -exec rm -rf -- {} +

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
export SOURCE_DATE_EPOCH=1580601600
locked=(-qq --no-deps --require-hashes --only-binary ':all:')
# The machine's Python, not this one's.
target=(--python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any)

if [[ ! -d $kept ]]; then
    new=$kept.new
    rm -rf -- "$new"
    mkdir -p "$new"
    /usr/bin/python3 -m venv "$new/venv"
    pip=("$new/venv/bin/python" -I -m pip)
    for name in executor api; do
        "${pip[@]}" download "${locked[@]}" "${target[@]}" --dest "$new/wheels" -r "$root/deploy/requirements-$name.lock" >&2
    done
    # The entries of the tests' libraries, out of a lock that holds linters too.
    awk -v wanted=" ${tests[*]} " '/^[a-z]/ { split($0, name, "=="); keep = index(wanted, " " name[1] " ") } keep' \
        "$root/deploy/requirements-dev.lock" >"$new/tests.lock"
    "${pip[@]}" install "${locked[@]}" "${target[@]}" --no-compile --target "$new/site" -r "$new/tests.lock" >&2
    # Compiling is slow inside. Only this very version of Python makes what it takes.
    if [[ $("$new/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') == "$version" ]]; then
        "$new/venv/bin/python" -I -m compileall -q -j 0 --invalidation-mode unchecked-hash "$new/site" >&2
    fi
    "${pip[@]}" install "${locked[@]}" -r "$root/deploy/requirements-build.lock" >&2
    mv -T -- "$new" "$kept"
fi

mkdir -p -- "$given"
cp -r -- "$kept/wheels" "$kept/site" "$given/"
for folder in "$root" "$root/executor"; do
    # The environment was made under another name: its python does not mind, its scripts would.
    "$kept/venv/bin/python" -I -m pip wheel --quiet --no-deps --no-index --no-build-isolation \
        --wheel-dir "$given/wheels" "$folder" >&2
done
