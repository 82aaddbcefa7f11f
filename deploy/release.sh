#!/bin/bash
# Make one release: two virtual environments, `executor` and `api`, from a folder of wheels, without network.
#   deploy/release.sh WHEELS FOLDER FINAL     made in FOLDER, to be used once it is moved to FINAL
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

die() { printf 'release: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 3 ]] || die "usage: deploy/release.sh WHEELS FOLDER FINAL"
wheels=$1 folder=$2 final=$3
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
readonly python=/usr/bin/python3
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# pip runs from its own wheel, unpacked, so that neither environment holds it.
pip=(/usr/share/python-wheels/pip-*.whl)
[[ -f ${pip[0]} ]] || die "needs pip's wheel: install python3-venv"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
"$python" -I -m zipfile -e "${pip[0]}" "$work"

make_venv() { # NAME DISTRIBUTION
    local venv=$folder/$1 wheel=("$wheels/$2"-*.whl)
    [[ ${#wheel[@]} -eq 1 && -f ${wheel[0]} ]] || die "$wheels must hold one wheel of $2 (deploy/wheels.sh makes it)"
    "$python" -m venv --without-pip "$venv"
    printf '%s @ file://%s --hash=sha256:%s\n' "${2//_/-}" "$(realpath -- "${wheel[0]}")" \
        "$(sha256sum <"${wheel[0]}" | cut -c 1-64)" >"$work/$1.txt"
    "$venv/bin/python" -I "$work/pip" install --quiet --no-index --no-deps --no-compile --only-binary :all: \
        --find-links "$wheels" --require-hashes -r "$here/requirements-$1.lock" -r "$work/$1.txt"
    # Scripts contain their interpreter's full path, which must be the final one.
    grep -rlIZF -- "$folder" "$venv/bin" "$venv/pyvenv.cfg" | xargs -0r sed -i "s|$folder|$final|g"
    "$venv/bin/python" -I -m compileall -q -j 0 -s "$folder" -p "$final" "$venv/lib"
}

make_venv executor sandrun_executor
make_venv api sandrun_server
