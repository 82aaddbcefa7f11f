#!/bin/bash
# Rebuild the third-party bundles of the web pages, as deploy/editor/package-lock.json pins them, with licences:
# CodeMirror (the editor), xterm.js (the output), Swagger UI (the viewer of the interface's description).
#   deploy/vendor-editor.sh [--upgrade]      needs npm; run it when these change; the result is checked in
set -euo pipefail
umask 022
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

command -v npm >/dev/null || { echo "vendor-editor.sh: npm is not installed" >&2; exit 1; }
readonly target=$PWD/api/sandrun_api/web/static/assets/vendor

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cp deploy/editor/* "$work"
cd -- "$work"
# Every package has its hash in the lock; none may run a program while it is installed.
quiet=(--ignore-scripts --no-audit --no-fund --loglevel=error)
if [[ ${1-} == --upgrade ]]; then
    npm update "${quiet[@]}" --save --omit-lockfile-registry-resolved >&2
    cp package.json package-lock.json "$OLDPWD/deploy/editor/"
else
    npm ci "${quiet[@]}" >&2
fi

node build.mjs
for file in {codemirror,xterm}{.js,-licences.txt} xterm.css swagger-ui{-bundle.js,.css,-licences.txt}; do
    install -D -m 644 "$file" "$target/$file"
done
