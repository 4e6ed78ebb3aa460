#!/usr/bin/env bash
# Back up models, logs, journal and ticks now; consistent while trading.
# usage: ops/backup.sh
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash backup "$@"
