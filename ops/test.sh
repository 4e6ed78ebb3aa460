#!/usr/bin/env bash
# One command that checks everything: format, lint, types, import contracts, generated files, shell scripts, tests.
# --all adds the tests that need a browser, systemd, containers, real data or much time, and installs what they need.
# usage: ops/test.sh [--all] [arguments of pytest]
set -u
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root" || exit 1
(set -e; ensure_environment test) || die "the test environment could not be installed"

all=0
if [ "${1:-}" = --all ]; then
  all=1
  shift
fi

packages=(chromium xvfb xauth xdotool systemd libcap2-bin util-linux iproute2 procps podman buildah crun runc debootstrap shellcheck spin gcc libc6-dev)
if [ "$all" = 1 ]; then
  missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Debian packages: ${missing[*]}"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } \
      >/dev/null 2>&1 || say "some Debian packages could not be installed; tests that need them say so"
  fi
  export L2DASH_TEST_ALL=1
fi

data="$(dirname "$root")/shared/data/lobster"
if [ -z "${L2DASH_REAL_DATA:-}" ] && [ -e "$data" ]; then
  export L2DASH_REAL_DATA="$data"
fi

passed=0
failed=0
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf 'ok      %s\n' "$name"
    passed=$((passed + 1))
  else
    printf 'FAILED  %s: %s\n%s\n' "$name" "$*" "$output"
    failed=$((failed + 1))
  fi
}

bin="$venv/bin"
check "format" "$bin/ruff" format --check --quiet .
check "lint" "$bin/ruff" check --quiet .
check "types" "$bin/mypy"
check "import contracts" "$bin/lint-imports" --config .importlinter --no-cache
check "generated files" "$bin/python" -m engine.generate --check
if command -v shellcheck >/dev/null; then
  check "shell scripts" shellcheck -x --severity=warning ops/*.sh tests/ops/*.sh .ci/run
fi

# Kernels are compiled once here, so that no single test pays for it.
check "kernels compile" "$bin/l2dash" compile

mkdir -p "$root/.cache"
# The accessibility checker is fetched for the tests alone; nothing of it is shipped.
axe="$root/.cache/axe-4.14.1/package/axe.min.js"
if [ "$all" = 1 ] && [ ! -f "$axe" ] && command -v npm >/dev/null; then
  mkdir -p "$root/.cache/axe-4.14.1"
  (cd "$root/.cache/axe-4.14.1" && npm pack --silent axe-core@4.14.1 && tar -xzf axe-core-4.14.1.tgz) >/dev/null 2>&1 ||
    say "axe-core could not be fetched; the tests that need it say so"
fi
if [ -z "${L2DASH_AXE:-}" ] && [ -f "$axe" ]; then
  export L2DASH_AXE="$axe"
fi

report="$root/.cache/tests.xml"
rm -f "$report"
marks=()
if [ "$all" = 0 ]; then
  marks=(-m "not real_data and not browser and not systemd and not container and not stress")
fi
# Whole files go to a worker, so that tests that share one running system stay together. A good part of their time is
# waiting (for boots, disks, cooling), hence one worker more than cores.
"$bin/python" -m pytest -n 3 --dist loadfile --no-loadscope-reorder "${marks[@]}" --junitxml="$report" "$@"
status=$?

"$bin/python" ops/report.py --report "$report" --status "$status" --passed "$passed" --failed "$failed" --all "$all"
