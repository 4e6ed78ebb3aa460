#!/usr/bin/env bash
# Write requirements.lock and requirements-test.lock anew: exact versions with the hashes of every platform's files,
# resolved on Python 3.11 and then proven to install on each of 3.11, 3.12 and 3.13 that this machine has.
# usage: ops/lock.sh [--upgrade] [--check-only]
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

# Only the main registry counts: links and extra indexes of this machine must not decide what others install.
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_INDEX_URL PIP_NO_INDEX
export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1

upgrade=()
compile=1
for argument in "$@"; do
  case "$argument" in
    --upgrade) upgrade=(--upgrade) ;;
    --check-only) compile=0 ;;
    *) say "usage: ops/lock.sh [--upgrade] [--check-only]"; exit 2 ;;
  esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$compile" = 1 ]; then
  python=${L2DASH_PYTHON:-$(command -v python3.11)} || die "the lock is made with Python 3.11, the oldest that is supported"
  "$python" -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --upgrade pip pip-tools
  options=(--quiet --generate-hashes --strip-extras --allow-unsafe --build-deps-for=editable
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host)
  "$work/venv/bin/pip-compile" "${options[@]}" "${upgrade[@]}" -o requirements.lock pyproject.toml
  "$work/venv/bin/pip-compile" "${options[@]}" "${upgrade[@]}" --extra test -c requirements.lock -o requirements-test.lock pyproject.toml
fi

for lock in requirements.lock requirements-test.lock; do
  if grep -nE '://|--(extra-)?index-url|--find-links|@ file' "$lock"; then die "$lock contains an address"; fi
  for version in 3.11 3.12 3.13; do
    python=$(command -v "python$version" || true)
    if [ -z "$python" ] || ! "$python" -c "" 2>/dev/null; then
      say "$lock: not checked on $version, which is not installed here"
      continue
    fi
    "$python" -m venv "$work/check-$version"
    "$work/check-$version/bin/pip" install --quiet --dry-run --ignore-installed --require-hashes -r "$lock"
    say "$lock: installs on $version"
    rm -rf "$work/check-$version"
  done
done
