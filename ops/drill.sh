#!/usr/bin/env bash
# Trip guardrails by their real causes on a private sim system, and show the course with times. Pages nobody.
# usage: ops/drill.sh BADGE...|all|processes [--json] [--instance NAME]
#        ops/drill.sh chaos [--kills N] [--seed S] [--json]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"
l2dash drill "$@"
