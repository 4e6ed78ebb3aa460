#!/usr/bin/env bash
# Restart the named services alone (all without names); the others keep running. Releases no stop.
# usage: ops/restart.sh [SERVICE...]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash restart "$@"
