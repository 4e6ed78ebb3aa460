#!/usr/bin/env bash
# Logs of all services, or of the named ones.
# usage: ops/logs.sh [-f] [-n LINES] [SERVICE...]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash logs "$@"
