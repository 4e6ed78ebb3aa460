#!/usr/bin/env bash
# Go back to the version that served before the last upgrade; positions are kept. Again: forward to the newer one.
# usage: ops/rollback.sh [--root DIR]
set -eu
exec "$(dirname "$0")/upgrade.sh" --back "$@"
