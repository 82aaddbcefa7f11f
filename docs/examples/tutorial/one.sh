#!/bin/bash
# One job with curl and jq: bash one.sh data/station-000.csv
set -euo pipefail
url=${SANDRUN_URL:-http://localhost:8443}
here=$(dirname "$0")

manifest='{"entrypoint": "summarise.py", "outputs": ["summary.json"], "timeout": 60}'
job=$(curl -fsS "$url/submit" -F "files=@$here/summarise.py" -F "files=@$1;filename=data.csv" \
    -F "manifest=$manifest" | jq -r .job_id)
until status=$(curl -fsS "$url/status/$job?wait=30") && jq -e '.verdict != null' <<<"$status" >/dev/null; do :; done
jq -r '"\(.verdict) \(.exit_code)"' <<<"$status"
if [[ $(jq -r .verdict <<<"$status") == ok ]]; then
    curl -fsS "$url/download/$job/summary.json"
else
    curl -fsS "$url/logs/$job" | jq -j .stderr | tail -n 1
fi
curl -fsS -X DELETE "$url/jobs/$job"
