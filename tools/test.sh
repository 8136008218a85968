#!/usr/bin/env bash
# All tests, in two halves at the same time: they mostly wait. One has the shared server for itself, the other
# containers, servers of its own and all that needs none; its output is shown when both have ended.
set -uo pipefail
cd "$(dirname "$0")/.."
shared="e2e and not container"
log=$(mktemp)
trap 'kill -INT $(jobs -p) 2>/dev/null; rm -f "$log"' EXIT
python -m pytest -m "not ($shared)" "$@" >"$log" 2>&1 &
python -m pytest -m "$shared" "$@"
first=$?
wait $!
second=$?
cat "$log"
exit $((first ? first : second))
