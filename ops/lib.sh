# Shared by the scripts in this folder: where things are, and an environment that is installed exactly once per lock.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.installed"

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# Prints a Python 3.11 to 3.13 that can make virtual environments.
find_python() {
  local candidate
  for candidate in ${L2DASH_PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "no Python 3.11, 3.12 or 3.13 with venv found: apt-get install python3 python3-venv, or name one in L2DASH_PYTHON"
}

digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# ensure_environment base|test: a virtual environment that matches the lock; does nothing when it does already.
ensure_environment() {
  local kind=$1 lock="$root/requirements.lock" base tests wanted
  base="base $(digest "$root/requirements.lock" "$root/pyproject.toml")"
  tests="test $(digest "$root/requirements-test.lock" "$root/pyproject.toml")"
  wanted=$base
  if [ "$kind" = test ]; then
    wanted=$tests
    lock="$root/requirements-test.lock"
  fi
  if [ -x "$venv/bin/l2dash" ] && [ -f "$stamp" ] && grep -qxF "$wanted" "$stamp"; then
    return
  fi
  if ! "$venv/bin/python" -c '' 2>/dev/null; then
    local python
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
  fi
  say "installing the packages of $(basename "$lock") (only when it has changed)"
  rm -f "$stamp"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
  # The test lock contains all of the base lock: one stamp line for each that holds now.
  if [ "$kind" = test ]; then
    printf '%s\n%s\n' "$base" "$tests" >"$stamp"
  else
    printf '%s\n' "$base" >"$stamp"
  fi
}

# l2dash ARGS...: the installed command line. It is found without installing anything: kill and flatten must not wait.
l2dash() {
  if [ -x "$venv/bin/l2dash" ]; then
    "$venv/bin/l2dash" "$@"
  else
    command -v l2dash >/dev/null || die "l2dash is not installed: run ./ops/run.sh once"
    command l2dash "$@"
  fi
}
