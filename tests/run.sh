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

pytest=(.venv/bin/python -P -m pytest)
[[ $# -eq 0 ]] || exec "${pytest[@]}" --ignore=tests/bench "$@" </dev/null

work=$(mktemp -d)
declare -A group=()
leave() {
    trap '' INT TERM
    local pid
    for pid in "${group[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null || true
        wait "$pid" || true
    done
    rm -rf -- "$work"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

background() { # NAME COMMAND...: with low priority, in a separate process group that can be killed as one
    setsid nice -n 5 "${@:2}" >"$work/$1" 2>&1 </dev/null &
    group[$1]=$!
}
outcome() { # NAME: prints its output; returns its status
    local status=0
    echo "Waiting for the $1"
    wait "${group[$1]}" || status=$?
    unset "group[$1]"
    cat -- "$work/$1"
    return "$status"
}

echo "The test machine and the tests without services run in the background; their output comes at the end."
[[ ${SANDRUN_VM-} == skip ]] || background machine tests/vm/run.sh short
background units "${pytest[@]}" tests/repo tests/unit

status=0
"${pytest[@]}" --ignore=tests/{bench,repo,unit} </dev/null || status=$?
outcome units || status=$?
if [[ -n ${group[machine]-} ]]; then
    in_machine=0
    outcome machine || in_machine=$?
    if [[ $in_machine -ne 0 ]]; then
        echo "The checks in the test machine failed or could not run (tests/vm/run.sh short): status $in_machine" >&2
        [[ $SANDRUN_SYSTEM_MUST_WORK != 1 || $status -ne 0 ]] || status=1
    fi
fi
exit "$status"
