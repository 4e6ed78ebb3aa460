#!/usr/bin/env bash
# Install if needed, then start everything in the foreground (sim unless told otherwise). Ctrl-C stops gracefully.
# usage: ops/run.sh [options of `l2dash up`]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
ensure_environment base
cd "$root"
exec "$venv/bin/l2dash" up "$@"
