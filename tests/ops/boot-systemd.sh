#!/usr/bin/env bash
# A real systemd for tests: this machine's own, as PID 1 of new namespaces, on throw-away overlays of / and of the
# project (seen there as /opt/l2-dash). Nothing is downloaded, nothing of the machine is changed. Needs root.
#   boot-systemd.sh boot WORK UNITS   make WORK, install the files of UNITS, boot, wait until it has settled
#   boot-systemd.sh in WORK COMMAND   run a command inside (its network has loopback only)
#   boot-systemd.sh halt WORK         end it and remove WORK
set -eu

project="$(cd "$(dirname "$0")/../.." && pwd)"
verb=${1:?boot, in or halt}
work=${2:?a directory to work in}

init_pid() { cat "$work/init.pid"; }

# The namespaces are entered from outside by their first process. The clock is the host's: nobody inside may set it.
inside() {
  nsenter --target "$(init_pid)" --all setpriv --bounding-set=-sys_time,-sys_module,-sys_boot --inh-caps=-all "$@"
}

control_group() {
  local mounted
  mounted=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || return 1
  printf '%s/%s' "$mounted" "l2dash-test-$(basename "$work")"
}

case "$verb" in
  boot)
    units=$(readlink -f "${3:?a directory with units}")
    mkdir -p "$work"
    work=$(readlink -f "$work")
    group=$(control_group) || { echo "no cgroup2 hierarchy is mounted" >&2; exit 1; }
    mkdir -p "$group"
    printf '%s\n' "$group" >"$work/group"
    (
      echo "$BASHPID" >"$group/cgroup.procs"
      exec setsid unshare --mount --propagation private --pid --uts --ipc --net --cgroup --fork --kill-child=SIGKILL \
        "$0" pivot "$work" "$units" "$project" </dev/null >"$work/boot.log" 2>&1
    ) &
    outer=$!
    printf '%s\n' "$outer" >"$work/outer.pid"
    child='' state=''
    for _ in $(seq 150); do
      child=$(pgrep --parent "$outer" | head -n 1 || true)
      [ -n "$child" ] && [ "$(cat "/proc/$child/comm" 2>/dev/null)" = systemd ] && break
      child=''
      sleep 0.1
    done
    [ -n "$child" ] || { cat "$work/boot.log" >&2; exit 1; }
    printf '%s\n' "$child" >"$work/init.pid"
    for _ in $(seq 150); do
      state=$(inside systemctl is-system-running 2>/dev/null || true)
      case "$state" in running | degraded) break ;; esac
      sleep 0.1
    done
    inside ip link set lo up
    printf '%s\n' "$state"
    ;;

  pivot) # already inside the new namespaces, as PID 1
    units=$3 project=$4
    mount -t tmpfs -o size=3g scratch "$work"
    new="$work/root"
    mkdir -p "$work/upper" "$work/under" "$work/upper-project" "$work/under-project" "$new"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/under" "$new"
    mkdir -p "$new/opt/l2-dash"
    mount -t overlay overlay \
      -o "lowerdir=$project,upperdir=$work/upper-project,workdir=$work/under-project" "$new/opt/l2-dash"
    mount -t proc proc "$new/proc"
    mount --bind "$new/proc/sys" "$new/proc/sys"
    mount -o remount,bind,ro "$new/proc/sys"
    mount -t sysfs -o ro sysfs "$new/sys"
    mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 run "$new/run"
    mount -t tmpfs -o mode=1777 tmp "$new/tmp"
    # The scripts of the environment name the project's own path, which may lie under the fresh /tmp.
    mkdir -p "$new$project"
    mount --bind "$new/opt/l2-dash" "$new$project"
    mount -t tmpfs -o mode=755 dev "$new/dev"
    for node in null zero full random urandom tty; do
      : >"$new/dev/$node"
      mount --bind "/dev/$node" "$new/dev/$node"
    done
    : >"$new/dev/console"
    mount --bind /dev/null "$new/dev/console"
    mkdir "$new/dev/shm" "$new/dev/pts"
    mount -t tmpfs -o mode=1777 shm "$new/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$new/dev/pts"
    ln -s pts/ptmx "$new/dev/ptmx"
    ln -s /proc/self/fd "$new/dev/fd"
    find "$new/etc/systemd/system" -maxdepth 1 -name '*.wants' -exec rm -rf {} +
    cp -r "$units"/. "$new/etc/systemd/system/"
    hostname l2dash-test
    cd "$new"
    mkdir former
    pivot_root . former
    umount --lazy /former
    exec env --ignore-environment container=l2dash-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      setpriv --bounding-set=-sys_time,-sys_module,-sys_boot \
      /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
    ;;

  in)
    shift 2
    inside "$@"
    ;;

  halt)
    group=$(cat "$work/group" 2>/dev/null || true)
    if [ -f "$work/init.pid" ]; then kill -s RTMIN+4 "$(init_pid)" 2>/dev/null || true; fi
    outer=$(cat "$work/outer.pid" 2>/dev/null || true)
    for _ in $(seq 50); do
      if [ -z "$outer" ] || ! kill -0 "$outer" 2>/dev/null; then break; fi
      sleep 0.1
    done
    if [ -n "$outer" ]; then kill -KILL "$outer" 2>/dev/null || true; fi
    sleep 0.2
    if [ -n "$group" ]; then find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
    rm -rf "$work"
    ;;

  *)
    sed -n '4,6p' "$0" >&2
    exit 2
    ;;
esac
