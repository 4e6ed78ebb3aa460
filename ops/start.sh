#!/usr/bin/env bash
# Start everything in the background and wait until it is ready; with names, start these services alone.
# usage: ops/start.sh [SERVICE...]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
ensure_environment base
cd "$root"
l2dash start "$@"
l2dash status
