#!/bin/bash
# One job for each file, eight at a time, with curl and jq: bash batch.sh data results
set -euo pipefail
url=${SANDRUN_URL:-http://localhost:8443}
here=$(dirname "$0")
manifest='{"entrypoint": "summarise.py", "outputs": ["summary.json"], "timeout": 60}'

# curl waits as Retry-After says; a submission that is sent again under its key does not run twice.
ask() { curl -fsS --retry 5 --retry-max-time 120 "$@"; }

summarise() {
    local folder job key
    folder=$2/$(basename "$1" .csv)
    [[ -e $folder/status.json ]] && return
    mkdir -p "$folder"
    key=$(cat /proc/sys/kernel/random/uuid)
    job=$(ask "$url/submit" -H "Idempotency-Key: $key" -F "files=@$here/summarise.py" \
        -F "files=@$1;filename=data.csv" -F "manifest=$manifest" | jq -r .job_id)
    until ask "$url/status/$job?wait=30" >"$folder/status" && jq -e '.verdict != null' "$folder/status" >/dev/null; do :; done
    if [[ $(jq -r .verdict "$folder/status") == ok ]]; then
        ask "$url/download/$job" | tar -xz -C "$folder"
    else
        ask "$url/logs/$job" | jq -j .stderr >"$folder/error.txt"
        ask -X DELETE "$url/jobs/$job"
    fi
    mv "$folder/status" "$folder/status.json"
}

export url here manifest
export -f ask summarise
find "$1" -name '*.csv' -print0 | sort -z |
    xargs -0 -P 8 -I '{}' bash -c 'set -euo pipefail; summarise "$@"' _ '{}' "$2"
echo "$(find "$2" -name summary.json | wc -l) summaries, $(find "$2" -name error.txt | wc -l) errors"
