#!/bin/bash
# Rewrite the locks of deploy/environments: every version pinned, every file by its hash.
#   deploy/lock-environments.sh [--upgrade] [NAME...]      needs deploy/setup.sh to have run
set -euo pipefail
umask 022
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

options=() names=()
for word in "$@"; do
    if [[ $word == --upgrade ]]; then options+=("$word"); else names+=("$word"); fi
done
[[ ${#names[@]} -gt 0 ]] || names=(--all)
exec .venv/bin/python -P -m sandrun_admin.cli env lock "${options[@]}" "${names[@]}"
