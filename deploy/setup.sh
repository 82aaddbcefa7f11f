#!/bin/bash
# Set up everything Sandrun needs on Debian 12 or Ubuntu 24.04; safe to run again at any time.
#   deploy/setup.sh [--dev]      --dev adds what the tests need
# Writes messages to standard error, and one line, the installation's folder, to standard output.
set -euo pipefail
umask 022 # root's shell may have 077, and then the api's user could read nothing of this
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

readonly user=sandrun
readonly python=/usr/bin/python3 # other users may execute it, unlike one under /root
readonly install_folder=/opt/sandrun-checkout # /opt/sandrun is deploy/install.sh's
packages=(ca-certificates libseccomp2 nodejs perl python3 python3-venv util-linux)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

dev=
case "${1-}" in
    "") ;;
    --dev) dev=1 ;;
    *) die "unknown argument $1; usage: deploy/setup.sh [--dev]" ;;
esac
[[ $EUID -eq 0 ]] || die "must run as root: sudo deploy/setup.sh"
[[ -z $dev ]] || packages+=(curl jq openssl python3-numpy systemd) # numpy is one that no job may see
[[ -z $dev ]] || command -v npm >/dev/null || packages+=(npm) # node's own packages bring one along
[[ -z $dev ]] || command -v bundle >/dev/null || packages+=(ruby-bundler) # to install gems for jobs
# Of the web page's tests. Ubuntu has Chromium only as a snap, which is not installed unasked.
if [[ -n $dev && $(. /etc/os-release && echo "$ID") == debian ]]; then
    packages+=(chromium fonts-liberation)
fi

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
root=$checkout
mapfile -t languages < <(grep -v '^#' "$checkout/deploy/languages.txt")
[[ -z $dev ]] || packages+=("${languages[@]}") # every one is tested

install_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || die "needs Debian or Ubuntu, or these packages by hand: ${packages[*]}"
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing missing system packages with apt: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -qq --yes --no-install-recommends "${missing[@]}" >&2 </dev/null
}

get_tools() { # programs that check the examples; unpacked, because installed they would serve
    local tools=$root/.venv/tools
    [[ -n $dev && ! -x $tools/usr/bin/caddy ]] || return 0
    say "unpacking nginx and caddy in $tools, to check the examples with"
    rm -rf -- "$tools" "$tools.new"
    mkdir -p "$tools.new"
    (cd "$tools.new" && apt-get update -qq && apt-get download -qq nginx caddy && for file in *.deb; do dpkg -x "$file" .; done) >&2
    rm -f -- "$tools.new"/*.deb
    mv -T -- "$tools.new" "$tools"
}

get_typescript() { # what makes a TypeScript client of docs/openapi.json, for a test
    local wanted=$root/tests/typescript/package-lock.json modules=$root/.venv/typescript
    [[ -n $dev ]] && ! cmp -s -- "$wanted" "$modules/package-lock.json" || return 0
    say "installing the packages of tests/typescript in $modules"
    rm -rf -- "$modules" "$modules.new"
    mkdir -p "$modules.new"
    cp -- "$root"/tests/typescript/package*.json "$modules.new"
    (cd "$modules.new" && npm ci --ignore-scripts --no-audit --no-fund --cache "$modules.new/cache") >&2 </dev/null
    rm -rf -- "$modules.new/cache"
    mv -T -- "$modules.new" "$modules"
}

create_user() {
    getent passwd "$user" >/dev/null && return
    say "creating the system user $user"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
}

as_user() { setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"; }

readable_by_user() { # FOLDER: may the user read all code beneath it?
    local unreadable
    unreadable=$(cd / && as_user find "$1/api" "$1/executor" "$1/shared" \
        ! -readable -print -o -type d ! -executable -print 2>&1 -quit) || return 1
    [[ -z $unreadable ]]
}

copy_checkout() {
    say "the user $user cannot read $checkout: installing a copy in $install_folder"
    find "$install_folder" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf -- {} +
    tar -C "$checkout" --exclude=./.venv --exclude=./.git --exclude=__pycache__ -cf - . |
        tar -C "$install_folder" --no-same-owner --no-same-permissions -xf -
    find "$install_folder" -mindepth 1 -maxdepth 1 ! -name .venv -exec chmod -R u=rwX,go=rX -- {} +
}

make_venv() {
    local venv=$root/.venv lock=requirements.lock base stamp old=()
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
    # The first line says whether a venv can be used at all, the second whether it is up to date.
    base="$("$python" -VV | tr '\n' ' ') at $venv"
    stamp=$(sha256sum "$root/deploy/requirements.lock" "$root/deploy/requirements-dev.lock" \
        "$root/pyproject.toml" "$root/deploy/setup.sh" | cut -c 1-64 | sha256sum | cut -c 1-64)
    mapfile -t old 2>/dev/null <"$venv/complete" || true
    if [[ ${old[0]-} != "$base" ]]; then
        say "making $venv"
        rm -rf -- "$venv"
        "$python" -m venv "$venv"
    elif [[ ${old[1]-} == "$stamp" && ( -z $dev || ${old[2]-} == dev ) ]]; then
        return
    fi
    [[ -z $dev && ${old[2]-} != dev ]] || lock=requirements-dev.lock
    # Removed during the work, so that an interrupted installation starts over.
    rm -f -- "$venv/complete"
    say "installing Python packages from deploy/$lock"
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
    "$venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$root/deploy/$lock" >&2
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --no-index --editable "$root" >&2
    (cd / && as_user "$venv/bin/python" -I -c 'import msgspec, sandrun_api, sandrun_shared') ||
        die "the user $user cannot run $venv/bin/python"
    printf '%s\n' "$base" "$stamp" "${lock//requirements-dev.lock/dev}" >"$venv/complete"
}

install_packages
if [[ -n $dev ]]; then # CPython's own tests, for tests/parity
    packages=("lib$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite")
    install_packages
fi
create_user
if [[ $checkout != "$install_folder" ]] && ! readable_by_user "$checkout"; then
    root=$install_folder
    mkdir -p "$root"
fi
# One at a time: a second run waits here for the first.
exec {folder}<"$root"
flock "$folder"
[[ $root == "$checkout" ]] || copy_checkout
make_venv
get_tools
get_typescript
printf '%s\n' "$root"
