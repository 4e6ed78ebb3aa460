#!/usr/bin/env bash
# Emergency: latch KILL, then SIGKILL every service, also hung ones. Erases nothing, and says what remains at the broker.
# usage: ops/kill.sh [--flatten]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash kill "$@"
