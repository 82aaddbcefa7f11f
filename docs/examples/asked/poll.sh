#!/bin/bash
# Submit, ask again every second, fetch: docs/faq.md
url=${SANDRUN_URL:-http://localhost:8443}
job=$(curl -s -X POST "$url/submit" \
    -F "files=@job.tar.gz" \
    -F 'manifest={"entrypoint": "main.py", "interpreter": "python3"}' | jq -r '.job_id')

while true; do
    status=$(curl -s "$url/status/$job" | jq -r '.status')
    [[ $status == completed || $status == failed ]] && break
    sleep 1
done

curl -s "$url/logs/$job" | jq -r '.stdout'
curl -s "$url/download/$job" -o outputs.tar.gz
