#!/usr/bin/env bash
# Restore a backup of a UTC date. The latch, the order-id mark and the drawdown are never rolled back.
# usage: ops/restore.sh YYYY-MM-DD
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash restore "$@"
