#!/usr/bin/env bash
# The first session of a new user, for real: `make demo`. It leaves the server up; `make down` stops it.
set -euo pipefail

work=$(mktemp -d "${TMPDIR:-/tmp}/kaos-demo.XXXXXX")
cd "$work"

run() {
  printf '\n$ %s\n' "$*"
  "$@" 2>&1
}

run kaos up
run kaos init -f
name=mnist
if kaos workspace list -o json | grep -q '"name": "mnist"'; then
  run kaos workspace set -n $name
else
  run kaos workspace create -n $name
fi
run kaos template get --name mnist
run kaos train deploy -s templates/mnist/model-train -d templates/mnist/data --wait
run kaos train list -n 5
run kaos train info -i 0 -s accuracy_test
run kaos train get -i 0 -c -d -m
run kaos train deploy -h templates/mnist/hyperopt/params.json --samples 4 --wait
run kaos train list -n 2
run kaos train info -i 0 -s accuracy_validation
run kaos train best -i 0 -s accuracy_validation
model=$(kaos train best -i 0 -s accuracy_validation)
run kaos model tag "$model" production
run kaos train reproduce -m production
run kaos serve deploy -s templates/mnist/model-serve -m production -n serve-mnist-demo --wait
run kaos serve list
url=$(kaos serve info -e serve-mnist-demo -o json | sed -n 's/^  "url": "\(.*\)",$/\1/p')
run curl -s --data-binary @templates/mnist/model-serve/mnist/test_payload.jpg "$url"
run kaos serve provenance -e serve-mnist-demo
run kaos lineage upstream serve-mnist-demo
printf '\nThe files are in %s.\n' "$work/mnist"
printf 'The server is up; look around in the UI. Its address and login: kaos up. Stop it: make down\n'
run kaos up
