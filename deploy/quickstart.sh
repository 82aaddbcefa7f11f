#!/bin/bash
# Set Sandrun up, start it on http://localhost:8443, run a first job, keep serving until Ctrl-C.
#   deploy/quickstart.sh [argument of `sandrun up`...]
set -euo pipefail
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$("$here/setup.sh")

# `sandrun up` reports on this pipe that it serves, with its address; end of file means that it failed.
exec {ready}< <(exec setpriv --pdeathsig TERM -- "$root/.venv/bin/python" -P -m sandrun_admin.cli up \
    --ready-fd 3 "$@" 3>&1 1>&2)
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
    [[ $status -ne 0 ]] || echo "Serving on $url until Ctrl-C"
fi
# A trapped signal ends the first wait early; the second one collects the exit status.
wait "$up" || true
wait "$up" && code=0 || code=$?
exit $((status > code ? status : code))
