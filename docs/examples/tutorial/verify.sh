#!/bin/bash
# Check every receipt and the file it speaks of, offline: bash verify.sh results
set -euo pipefail
count=0
for status in "$1"/*/status.json; do
    folder=$(dirname "$status")
    files=()
    [[ -e $folder/summary.json ]] && files=("$folder/summary.json")
    sandrun verify --worker "$SANDRUN_WORKER" "$status" "${files[@]}" >/dev/null
    count=$((count + 1))
done
echo "$count receipts hold"
