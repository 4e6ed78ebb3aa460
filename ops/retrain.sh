#!/usr/bin/env bash
# Train a candidate model; exit 0 if it was promoted, 3 if the incumbent was kept.
# usage: ops/retrain.sh [options of `l2dash retrain`]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash retrain "$@"
