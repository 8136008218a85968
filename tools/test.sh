#!/usr/bin/env bash
# All tests, in two halves at the same time: they mostly wait. One is most of what runs end to end, the other
# containers, some files that are marked to make it as long, and all that needs no server; its output is shown
# when both have ended.
set -uo pipefail
cd "$(dirname "$0")/.."
shared="e2e and not container and not second"
log=$(mktemp)
trap 'kill -INT $(jobs -p) 2>/dev/null; rm -f "$log"' EXIT
python -m pytest -m "not ($shared)" "$@" >"$log" 2>&1 &
python -m pytest -m "$shared" "$@"
first=$?
wait $!
second=$?
cat "$log"
exit $((first ? first : second))
