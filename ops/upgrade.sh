#!/usr/bin/env bash
# Install a version beside the one that runs, switch to it, and go back by itself if it does not come up healthy.
# Positions are kept: it is an orderly stop and a start, a few seconds apart. The first call installs.
# usage: ops/upgrade.sh [--root DIR] [--prepare] SOURCE
#   SOURCE     a checkout (its commit), a folder or tar archive of the sources, or the name of a prepared release
#   --prepare  install and check only; nothing that runs is touched
#   --root     where releases/, current, previous and data/ lie (default /opt/l2-dash)
# ops/rollback.sh is the way back. Exit 0 done, 1 failed (the former version serves), 2 usage, 3 refused.
set -eu
# shellcheck source=ops/lib.sh
. "$(dirname "$0")/lib.sh"

WAIT_S=${L2DASH_UPGRADE_WAIT_S:-180}
KEEP=3
home=/opt/l2-dash
verb=upgrade
source=
while [ $# -gt 0 ]; do
  case "$1" in
    --root) home=${2:?--root names a folder}; shift ;;
    --prepare) verb=prepare ;;
    --back) verb=rollback ;;
    -*) sed -n '4,8p' "$0" >&2; exit 2 ;;
    *) source=$1 ;;
  esac
  shift
done
if [ "$verb" != rollback ] && [ -z "$source" ]; then
  sed -n '4,8p' "$0" >&2
  exit 2
fi

refuse() {
  say "refused: $*"
  exit 3
}

# What the units set, for the commands of this script: the host's own settings win.
settings() {
  if [ -r /etc/default/l2dash ] && [ "$home" = /opt/l2-dash ]; then
    set -a
    # shellcheck source=/dev/null
    . /etc/default/l2dash
    set +a
  fi
  export L2DASH_STATE_DIR="${L2DASH_STATE_DIR:-$home/data}"
  export L2DASH_CACHE_DIR="${L2DASH_CACHE_DIR:-$home/data/cache}"
  export L2DASH_CONFIG="${L2DASH_CONFIG:-$home/current/config/sim.toml}"
}

release_of() { basename "$(readlink "$home/$1")"; }

# in_release NAME ARGS...: that release's command line, as the user to whom the data belongs.
in_release() {
  local name=$1 owner
  shift
  owner=$(stat -c %U "$home/data")
  if [ "$(id -u)" = 0 ] && [ "$owner" != root ]; then
    runuser -u "$owner" --preserve-environment -- "$home/releases/$name/.venv/bin/l2dash" "$@"
  else
    "$home/releases/$name/.venv/bin/l2dash" "$@"
  fi
}

# unpack SOURCE INTO: the sources without what a checkout gathers around them.
unpack() {
  local what
  what=$(readlink -f "$1")
  if [ -f "$what" ]; then
    tar -C "$2" -xf "$what"
    if [ ! -f "$2/pyproject.toml" ] && [ "$(ls -A "$2" | wc -l)" = 1 ]; then # made of a folder: what lies in it
      mv "$2/$(ls -A "$2")" "$2.inner"
      rmdir "$2"
      mv "$2.inner" "$2"
    fi
  elif [ -e "$what/.git" ]; then
    [ -z "$(git -C "$what" status --porcelain)" ] || say "changes that are not committed in $what are left out"
    git -C "$what" archive HEAD | tar -C "$2" -xf -
  else
    tar -C "$what" --exclude=./.venv --exclude=./.cache --exclude=./var --exclude=./data --exclude='*/__pycache__' -cf - . |
      tar -C "$2" -xf -
  fi
  [ -f "$2/pyproject.toml" ] && [ -x "$2/ops/upgrade.sh" ] || die "$1 holds no version of L2 DASH: no pyproject.toml, no ops/"
}

# prepare SOURCE: sets `release`. A release is named for its version and its content, so that two hosts can be compared.
prepare() {
  local stage version
  if [ -e "$home/releases/$1/.complete" ]; then
    release=$1
    return
  fi
  [ -e "$1" ] || die "$1 is neither a file, nor a folder, nor a release in $home/releases"
  stage=$(mktemp -d "$home/releases/.incoming.XXXXXX")
  trap 'rm -rf "$stage"' EXIT
  unpack "$1" "$stage"
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$stage/pyproject.toml" | head -n 1)
  release="$version-$(cd "$stage" && find . -type f ! -path './docs/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-8)"
  if [ ! -e "$home/releases/$release/.complete" ]; then
    say "installing $release into $home/releases (what runs is not touched)"
    rm -rf "${home:?}/releases/$release"
    chmod 755 "$stage"
    mv "$stage" "$home/releases/$release"
    printf '%s\n' "$release" >"$home/releases/$release/RELEASE"
    bash -c '. "$1/ops/lib.sh" && ensure_environment base' _ "$home/releases/$release"
  fi
  rm -rf "$stage"
  trap - EXIT
  check "$release"
  touch "$home/releases/$release/.complete"
}

# check NAME: the host's configuration is understood, and kernels are compiled now rather than while nothing trades.
check() {
  local config=$L2DASH_CONFIG
  case "$config" in "$home"/current/*) config="$home/releases/$1/${config#"$home"/current/}" ;; esac
  L2DASH_CONFIG=$config in_release "$1" config check >/dev/null || die "release $1 does not accept $config"
  in_release "$1" compile
}

by_systemd() { [ "$home" = /opt/l2-dash ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

# Is an instance up, healthy or not?
running() {
  [ -L "$home/current" ] || return 1
  in_release "$(release_of current)" status >/dev/null 2>&1 || [ $? = 1 ]
}

# point LINK NAME: in one step, so that at no moment is there none.
point() {
  ln -sfn "releases/$2" "$home/.$1.new"
  mv -T "$home/.$1.new" "$home/$1"
}

# serve NAME: take over links and units, start, and wait until every service is healthy. Status 1 if that does not come.
serve() {
  local deadline starter=
  point current "$1"
  if by_systemd; then
    cp "$home/releases/$1"/systemd/l2dash* /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --quiet l2dash.target
    systemctl reset-failed 'l2dash*' 2>/dev/null || true
    systemctl start l2dash.target || return 1
  else
    in_release "$1" up --detach >&2 &
    starter=$!
  fi
  deadline=$((SECONDS + WAIT_S))
  until in_release "$1" status >/dev/null 2>&1; do
    if [ -n "$starter" ] && ! kill -0 "$starter" 2>/dev/null; then
      wait "$starter" || return 1
      starter=
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      in_release "$1" status >&2 || true
      if [ -n "$starter" ]; then kill "$starter" 2>/dev/null || true; fi
      return 1
    fi
    sleep 0.5
  done
}

# halt NAME: orderly stop of whatever is up, positions kept.
halt() {
  if running; then in_release "$1" down; fi
}

# switch TO: stop what runs in order, positions kept; serve TO; or serve again what ran before.
switch() {
  local before='' began=$SECONDS
  if [ -L "$home/current" ]; then before=$(release_of current); fi
  if [ "$before" = "$1" ]; then
    say "$1 serves already"
    return
  fi
  if [ -n "$before" ] && running; then
    if in_release "$before" status --json 2>/dev/null | grep -q '"running": *true'; then
      refuse "a flatten is running: wait until it is confirmed flat"
    fi
    say "positions before:"
    in_release "$before" positions >&2
  fi
  if [ -n "$before" ]; then
    halt "$before" || die "$before does not stop: see ops/kill.sh; nothing was changed"
  fi
  if serve "$1"; then
    if [ -n "$before" ]; then point previous "$before"; fi
    say "$1 serves after $((SECONDS - began)) s (before: ${before:-none}); positions now:"
    in_release "$1" positions >&2
    prune
    return
  fi
  say "$1 did not come up healthy within $WAIT_S s"
  halt "$1" || in_release "$1" kill || true
  [ -n "$before" ] || die "there is no former version to go back to"
  serve "$before" || die "$before does not come up either: positions are unguarded, look at the broker first"
  die "$before serves again; the logs of the attempt are in $L2DASH_STATE_DIR/logs"
}

prune() {
  local name
  # shellcheck disable=SC2012  # names are ours: a version and a digest
  ls -1t "$home/releases" | tail -n +$((KEEP + 1)) | while read -r name; do
    case "$name" in "$(release_of current)" | "$([ -L "$home/previous" ] && release_of previous)") ;; *) rm -rf "${home:?}/releases/$name" ;; esac
  done
}

[ -d "$home" ] || mkdir -p "$home" || die "$home can't be made: run this as root, or name another folder with --root"
[ -w "$home" ] || die "$home is not writable: run this as root, or name another folder with --root"
mkdir -p "$home/releases"
if [ ! -d "$home/data" ]; then
  mkdir -m 700 "$home/data"
  if [ "$(id -u)" = 0 ] && id l2dash >/dev/null 2>&1; then chown l2dash:l2dash "$home/data"; fi
fi
exec 9>"$home/.upgrade.lock"
flock -n 9 || refuse "another upgrade of $home is under way"
settings

case "$verb" in
  prepare)
    prepare "$source"
    say "$release is ready: ops/upgrade.sh $release"
    ;;
  upgrade)
    prepare "$source"
    switch "$release"
    ;;
  rollback)
    [ -L "$home/previous" ] || refuse "$home has no previous version to go back to"
    switch "$(release_of previous)"
    ;;
esac
