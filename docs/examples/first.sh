#!/bin/bash
# A folder as a job, in four requests: docs/getting-started.md
set -euo pipefail
url=${SANDRUN_URL:-http://localhost:8443}
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
cd "$folder"

echo 'print("hello"); open("answer.txt", "w").write("42\n")' >main.py
echo '{"entrypoint": "main.py", "outputs": ["answer.txt"]}' >job.json
tar -czf job.tar.gz main.py job.json

job=$(curl -fsS "$url/submit" -F files=@job.tar.gz | jq -r .job_id)
curl -fsS "$url/status/$job?wait=30" | jq -r .status
curl -fsS "$url/logs/$job" | jq -j .stdout
curl -fsS "$url/download/$job" | tar -xz
cat answer.txt
