#!/bin/bash
# Bundle the web page's editor anew: CodeMirror as deploy/editor/package-lock.json pins it, in one module with its licences.
#   deploy/vendor-editor.sh [--upgrade]      needs npm; only who changes the editor runs it, the result is checked in
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

node_modules/.bin/esbuild entry.js --bundle --minify --format=esm --target=es2022 --legal-comments=none \
    --metafile=meta.json --outfile=codemirror.js --log-level=warning
node - >licences.txt <<'SCRIPT'
// The licence of every package of which a part is in the bundle.
const fs = require("node:fs");
const used = Object.keys(JSON.parse(fs.readFileSync("meta.json")).inputs)
  .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean);
console.log("codemirror.js is a bundle of these packages, each under the MIT licence that follows it.");
for (const name of [...new Set(used)].sort()) {
  const { version, license } = JSON.parse(fs.readFileSync(`node_modules/${name}/package.json`));
  if (license !== "MIT") throw new Error(`${name} is under ${license}`);
  console.log(`\n${"=".repeat(80)}\n${name} ${version}\n\n${fs.readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}`);
}
SCRIPT
install -D -m 644 codemirror.js "$target/codemirror.js"
install -D -m 644 licences.txt "$target/codemirror-licences.txt"
