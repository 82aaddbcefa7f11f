#!/bin/bash
# Sandrun with curl (and jq, to read JSON): docs/examples/README.md
set -euo pipefail
url=${SANDRUN_URL:-http://localhost:8443}

echo "== Code in, text out; the exit code is in a header"
curl -fsS "$url/run" -H 'Content-Type: text/plain' --data-binary 'print("hi")'

echo "== The same in another language, with arguments and limits, as JSON"
jq -n '{code: "console.log(process.argv.slice(2))", interpreter: "node", args: ["a", "b c"], timeout: 10}' |
    curl -fsS "$url/run" -H 'Content-Type: application/json' --data-binary @- |
    jq -r '"\(.stdout)verdict: \(.verdict)"'

echo "== A folder: pack it, submit it, wait for it, see what it printed"
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
mkdir "$folder/in" "$folder/out"
echo '1,2,3' >"$folder/in/data.csv"
cat >"$folder/in/main.py" <<'END'
from pathlib import Path

numbers = [int(text) for text in Path("data.csv").read_text().split(",")]
Path("results").mkdir()
Path("results/sum.txt").write_text(f"{sum(numbers)}\n")
print("summed", len(numbers), "numbers")
END
tar -czf "$folder/in.tar.gz" -C "$folder/in" .
job=$(curl -fsS "$url/submit" -F "files=@$folder/in.tar.gz" \
    -F 'manifest={"entrypoint": "main.py", "outputs": ["results/"]}' | jq -r .job_id)
until curl -fsS "$url/status/$job?wait=30" | jq -e '.verdict != null' >/dev/null; do :; done
curl -fsS "$url/logs/$job" | jq -j .stdout

echo "== The files it left, as one archive; then the job is deleted"
curl -fsS "$url/download/$job" | tar -xz -C "$folder/out"
cat "$folder/out/results/sum.txt"

echo "== A program that fails is an answer, not an error"
echo '{"code": "raise SystemExit(3)"}' | curl -fsS "$url/run" -H 'Content-Type: application/json' -d @- |
    jq -c '{verdict, exit_code}'
