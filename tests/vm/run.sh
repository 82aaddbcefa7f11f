#!/bin/bash
# Sandrun as a service on a real Debian: systemd, pure cgroup v2, no network, emulated by qemu.
#   tests/vm/run.sh short          what tests/run.sh runs: installs, a job of each verdict, crashes, stops
#   tests/vm/run.sh suites [FILE…] the system and security suites, or these files of them
#   tests/vm/run.sh service        short, an upgrade while jobs run, a reboot, the removal
#   tests/vm/run.sh full           service and suites
#   tests/vm/run.sh COMMAND...     that command, as root, with the checkout at /src and wheels at /given
#   tests/vm/run.sh --suite trixie …   on Debian 13, with its systemd and its Python, instead of Debian 12
# Works without KVM. The machine is built on first use and kept in $SANDRUN_VM_CACHE (/var/cache/sandrun-vm).
set -euo pipefail
umask 022
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd -- "$here/../.." && pwd -P)
say() { printf 'vm: [%d s] %s\n' "$SECONDS" "$*" >&2; }
if [[ ${1-} == --suite && $# -ge 2 ]]; then
    export SANDRUN_VM_SUITE=$2
    shift 2
fi
suite=${SANDRUN_VM_SUITE:-bookworm}
[[ $# -gt 0 ]] || { say "usage: tests/vm/run.sh [--suite SUITE] short | suites [FILE...] | service | full | COMMAND..."; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/sandrun-given-XXXXXX")
child=''
leave() {
    trap - EXIT INT TERM HUP
    [[ -z $child ]] || { kill -TERM "$child" && wait "$child"; } 2>/dev/null || true
    rm -rf -- "$work"
    exit "${1:-$?}"
}
trap leave EXIT
trap 'leave 130' INT
trap 'leave 143' TERM HUP
# In the background, so that a signal finds this shell waiting and not deaf.
run() { "$@" & child=$!; wait "$child"; child=''; }

packages=() seconds=900 after=()
mapfile -t languages < <(grep -v '^#' "$root/deploy/languages.txt")
languages+=(openssl python3-numpy)
case $1 in
    short) command=(/bin/bash /src/tests/vm/guest/main.sh short) seconds=1500; [[ $suite == bookworm ]] || seconds=3600 ;;
    suites)
        packages=("${languages[@]}")
        command=(/bin/bash /src/tests/vm/guest/main.sh "$@") seconds=14400
        ;;
    service | full)
        [[ $1 == service ]] || packages=("${languages[@]}")
        command=(/bin/bash /src/tests/vm/guest/main.sh "$1") seconds=21600
        after=(--after-reboot "/bin/bash /src/tests/vm/guest/main.sh rebooted")
        ;;
    *) command=("$@") ;;
esac

run "$here/build.sh" ${packages[@]+"${packages[@]}"} >"$work/image"
image=$(<"$work/image")
say "making wheels"
run "$here/wheels.sh" "$work/given"
if [[ $1 == @(short|service|suites) && $suite == bookworm ]] && /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    # Making the environments takes minutes inside; the package holds them, made by this host's same Python.
    say "making the package"
    run "$root/deploy/build-deb.sh" --wheels "$work/given/wheels" "$work/given" >/dev/null
    if [[ $1 == service ]]; then
        say "making another, to upgrade to"
        cp -r -- "$work/given/wheels" "$work/wheels"
        touch -- "$work/wheels/another"
        run "$root/deploy/build-deb.sh" --wheels "$work/wheels" "$work/given/next" >/dev/null
    fi
fi
say "starting the machine"
run /usr/bin/python3 -I "$here/machine.py" --image "$image" run --give "$root:/src" --give "$work/given:/given" \
    --seconds "$seconds" ${after[@]+"${after[@]}"} "${command[@]}"
say "done"
