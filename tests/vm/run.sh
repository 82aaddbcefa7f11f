#!/bin/bash
# Sandrun as a service on a real Debian 12: systemd, pure cgroup v2, no network, emulated by qemu.
#   tests/vm/run.sh short          what tests/run.sh runs: installs, a job of each verdict, crashes, stops
#   tests/vm/run.sh full           also the system and security suites, an upgrade while jobs run, a reboot
#   tests/vm/run.sh COMMAND...     that command, as root, with the checkout at /src and wheels at /given
# Works without KVM. The machine is built on first use and kept in $SANDRUN_VM_CACHE (/var/cache/sandrun-vm).
set -euo pipefail
umask 022
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd -- "$here/../.." && pwd -P)
say() { printf 'vm: [%d s] %s\n' "$SECONDS" "$*" >&2; }
[[ $# -gt 0 ]] || { say "usage: tests/vm/run.sh short | full | COMMAND..."; exit 2; }

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
case $1 in
    short) command=(/bin/bash /src/tests/vm/guest/main.sh short) seconds=999 ;;
    full)
        mapfile -t packages < <(grep -v '^#' "$root/deploy/languages.txt")
        packages+=(python3-numpy)
        command=(/bin/bash /src/tests/vm/guest/main.sh full) seconds=7200
        after=(--after-reboot "/bin/bash /src/tests/vm/guest/main.sh rebooted")
        ;;
    *) command=("$@") ;;
esac

run "$here/build.sh" ${packages[@]+"${packages[@]}"} >"$work/image"
image=$(<"$work/image")
say "making wheels"
run "$here/wheels.sh" "$work/given"
if [[ $1 == short ]] && /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    # Making the environments takes minutes inside; the package holds them, made by this host's same Python.
    say "making the package"
    run "$root/deploy/build-deb.sh" --wheels "$work/given/wheels" "$work/given" >/dev/null
fi
say "starting the machine"
run /usr/bin/python3 -I "$here/machine.py" --image "$image" run --give "$root:/src" --give "$work/given:/given" \
    --seconds "$seconds" ${after[@]+"${after[@]}"} "${command[@]}"
say "done"
