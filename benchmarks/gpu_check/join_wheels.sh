#!/usr/bin/env bash
# join_wheels.sh FROM TO: wheels that came in parts, NAME.whl.000, NAME.whl.001 …, become whole ones.
set -euo pipefail
shopt -s nullglob
mkdir -p "$2"
for first in "$1"/*.whl.000; do
    wheel=${first%.000}
    cat "$wheel".[0-9][0-9][0-9] > "$2/$(basename "$wheel")"
done
