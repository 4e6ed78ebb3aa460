#!/usr/bin/env bash
# Stop in order: no new orders, working orders cancelled, journal flushed. Positions stay open unless --flatten is given.
# usage: ops/stop.sh [--flatten] | ops/stop.sh SERVICE...
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
for argument in "$@"; do
  case "$argument" in
    -*) ;;
    *) l2dash stop "$@"; exit ;;
  esac
done
l2dash down "$@"
