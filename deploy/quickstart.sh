#!/bin/bash
# Set Sandrun up, start it on http://localhost:8443, run a first job, keep serving until Ctrl-C.
#   deploy/quickstart.sh [--env NAME]... [argument of `sandrun up`...]
# --env builds an environment first, once: agent has pandas, matplotlib, scikit-learn and more (docs/environments.md).
set -euo pipefail
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
environments=() up_arguments=() config=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --env)
            [[ -n ${2-} ]] || { echo "quickstart: --env needs a name, as in --env agent" >&2; exit 2; }
            environments+=("$2")
            shift 2
            continue
            ;;
        --env=?*) environments+=("${1#*=}") ;;
        --config) config=(--config "${2-}") up_arguments+=("$1") ;;
        --config=*) config=("$1") up_arguments+=("$1") ;;
        *) up_arguments+=("$1") ;;
    esac
    shift
done

root=$("$here/setup.sh")
sandrun=("$root/.venv/bin/python" -P -m sandrun_admin.cli)
[[ ${#environments[@]} -eq 0 ]] || "${sandrun[@]}" env build ${config[@]+"${config[@]}"} "${environments[@]}"

say_what_next() { # URL
    local name
    echo
    echo "In a browser: $1/"
    for name in ${environments[@]+"${environments[@]}"}; do
        echo "With the packages of $name: \"environment\": \"$name\" in the request, or"
        echo "  curl -H 'Content-Type: text/plain' -d 'import sys; print(sys.prefix)' '$1/run?environment=$name'"
    done
    if [[ ${#environments[@]} -eq 0 ]]; then
        echo "Python has its standard library alone. For pandas, matplotlib, scikit-learn and more, while this serves:"
        echo "  sudo '$root/.venv/bin/sandrun' env build agent${config[*]+ ${config[*]}}"
        echo "Other environments: $root/docs/environments.md"
    fi
    echo "Serving on $1 until Ctrl-C"
}

# `sandrun up` says on this pipe that it serves, with its address; end of file means that it could not.
exec {ready}< <(exec setpriv --pdeathsig TERM -- "${sandrun[@]}" up --ready-fd 3 \
    ${up_arguments[@]+"${up_arguments[@]}"} 3>&1 1>&2)
up=$!

stop() {
    trap '' INT TERM
    kill -TERM "$up" 2>/dev/null || true
}
trap stop INT TERM

status=0
if read -r url <&"$ready"; then
    echo "Running a first job: POST $url/run"
    "$root/.venv/bin/python" -I - "$url" <<'PYTHON' || { status=1; stop; }
import json
import sys
import urllib.request

code = "import os\nprint('Hello from the sandbox. I am user', os.getuid(), 'and see', os.listdir('.'))"
body = json.dumps({"code": code, "interpreter": "python3"}).encode()
request = urllib.request.Request(sys.argv[1] + "/run", body, {"Content-Type": "application/json"})
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
    answer = json.load(response)
print(json.dumps(answer, indent=2))
sys.exit(answer.get("verdict") != "ok")
PYTHON
    [[ $status -ne 0 ]] || say_what_next "$url"
fi
# A trapped signal ends the first wait early; the second one collects the exit status.
wait "$up" || true
wait "$up" && code=0 || code=$?
exit $((status > code ? status : code))
