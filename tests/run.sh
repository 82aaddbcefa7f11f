#!/bin/bash
# Set everything up and run every test; arguments go to pytest (tests/run.sh -k framing) and leave out the
# test machine (tests/vm), as SANDRUN_VM=skip does.
set -euo pipefail
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$("$here/../deploy/setup.sh" --dev </dev/null)

cd -- "$root"
# What cannot run here must fail, not be skipped.
export SANDRUN_SYSTEM_MUST_WORK=${SANDRUN_SYSTEM_MUST_WORK:-1} PYTHONDONTWRITEBYTECODE=1

machine='' words=''
leave() {
    trap '' INT TERM
    if [[ -n $machine ]]; then
        kill -TERM -- "-$machine" 2>/dev/null || true
        wait "$machine" || true
    fi
    rm -f -- "$words"
}
if [[ $# -eq 0 && ${SANDRUN_VM-} != skip ]]; then
    words=$(mktemp)
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "The test machine is at work meanwhile; what it says comes at the end."
    # A group of its own, to be ended as one. The tests here go first: some have time limits for real machines.
    setsid nice -n 5 tests/vm/run.sh short >"$words" 2>&1 </dev/null &
    machine=$!
fi

status=0
.venv/bin/python -P -m pytest --ignore=tests/bench "$@" </dev/null || status=$?

if [[ -n $machine ]]; then
    echo "Waiting for the test machine"
    in_machine=0
    wait "$machine" || in_machine=$?
    machine=''
    cat -- "$words"
    if [[ $in_machine -ne 0 ]]; then
        echo "The checks in the test machine failed or could not run (tests/vm/run.sh short): status $in_machine" >&2
        [[ $SANDRUN_SYSTEM_MUST_WORK != 1 || $status -ne 0 ]] || status=1
    fi
fi
exit "$status"
