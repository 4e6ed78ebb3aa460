"""``l2dash doctor``: is this host fit, and what to fix. Looks only; changes nothing."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from engine.cli import show
from engine.cli.doctor_broker import depth_lines, entitlements, gateway
from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.cli.settings import json_option, target_options, target_or_starting
from engine.config import Config
from shm import memory
from shm.memory import Granted

SHM_NEED = 128 * 1024 * 1024
BYTES_PER_TICK = 64
NOFILE_NEED = 1024
SESSION_S = 23_400


@click.command()
@target_options
@json_option
def doctor(config_file: Path | None, instance: str | None, as_json: bool) -> int:
    """Check cores, isolation, governor, clock, limits, memory, ports, disk, gateway and data. Exit 1 on a failure."""
    findings = list(examine(target_or_starting(config_file, instance)))
    if as_json:
        show.as_json([asdict(f) for f in findings])
    else:
        show.table(
            [asdict(f) for f in findings], {"check": "check", "status": "status", "found": "found", "fix": "what to do"}
        )
    return 1 if any(f.status == FAIL for f in findings) else 0


def examine(config: Config) -> Iterator[Finding]:
    """Every finding, in the order of the machine: processor, kernel, memory, disk, network."""
    checks: tuple[Callable[[Config], Finding], ...] = (
        cores, scheduling, isolation, governor, clock_source, clock_synchronised, memory_lock, huge_pages, open_files,
        shared_memory, leftovers, kernel_cache, disk, state_directory, model, cockpit_port, health_port, gateway,
        depth_lines, entitlements,
    )  # fmt: skip
    for check in checks:
        yield check(config)


def cores(config: Config) -> Finding:
    from engine import topology

    count, hot = len(os.sched_getaffinity(0)), sum(s.hot for s in topology.SERVICES)
    if count >= hot + 2:
        return Finding("cores", OK, f"{count}: each of the {hot} hot services gets its own")
    status = FAIL if config.instance.mode == "live" and count < 4 else WARN
    return Finding(
        "cores", status, f"{count}: hot services share them and sleep when idle", f"{hot + 2} cores for pinned services"
    )


def scheduling(config: Config) -> Finding:
    """Whether the watchdog goes before everything else: as it runs, or as a process of this user would."""
    from engine import topology
    from engine.runtime import priority
    from engine.runtime.instance import living

    if not config.runtime.realtime:
        return Finding("scheduling", OK, "real-time turns of the watchdog are not asked for (runtime.realtime)")
    fix = "give the watchdog an rtprio limit of 1 (LimitRTPRIO of its unit), or SYS_NICE to its container"
    pid = next((life.pid for life in living(config) if life.service == topology.WATCHDOG), 0)
    if pid:
        if priority.is_first(pid):
            return Finding("scheduling", OK, "the watchdog runs before everything else (SCHED_RR)")
        return Finding("scheduling", WARN, f"the watchdog (pid {pid}) has no real-time turns", fix)
    refused = priority.trial()
    if refused:
        return Finding("scheduling", WARN, f"no real-time turns for the watchdog: {refused}", fix)
    return Finding("scheduling", OK, "the watchdog may run before everything else (SCHED_RR)")


def isolation(config: Config) -> Finding:
    isolated = _read("/sys/devices/system/cpu/isolated")
    if isolated:
        return Finding("isolated cores", OK, isolated)
    if config.instance.mode != "live":
        return Finding("isolated cores", OK, "none")
    fix = "boot with isolcpus=, nohz_full= and rcu_nocbs= for the hot cores"
    return Finding("isolated cores", WARN, "none", fix)


def governor(config: Config) -> Finding:
    found = {_read(str(p)) for p in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not found:
        return Finding("governor", OK, "not under this kernel's control (virtual machine)")
    if found == {"performance"}:
        return Finding("governor", OK, "performance")
    return Finding("governor", WARN, ", ".join(sorted(found)), "cpupower frequency-set -g performance")


def clock_source(config: Config) -> Finding:
    found = _read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if found in ("tsc", "arch_sys_counter", "kvm-clock"):
        return Finding("clock source", OK, found)
    return Finding(
        "clock source", WARN, found or "unknown", "reading the clock costs a system call: boot with clocksource=tsc"
    )


def clock_synchronised(config: Config) -> Finding:
    import ctypes

    buffer = (ctypes.c_long * 64)()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(buffer))
    if state < 0:
        return Finding("clock", WARN, "the kernel does not tell", "run chrony or systemd-timesyncd")
    if state == 5:  # TIME_ERROR: not synchronised
        return Finding(
            "clock",
            WARN,
            "not synchronised",
            "run chrony or systemd-timesyncd; sessions and the journal need true time",
        )
    return Finding("clock", OK, "synchronised")


def granted_to(config: Config) -> dict[str, Granted]:
    """What the kernel gave each living service of its regions, read back from its ``smaps``."""
    from engine.runtime.instance import living

    return {life.service: memory.granted(config.shm_dir, life.pid) for life in living(config)}


def memory_lock(config: Config) -> Finding:
    """The limit before a start; what was really locked once services run."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    words = "unlimited" if soft == resource.RLIM_INFINITY else f"limit {soft // 1024} KiB"
    got = granted_to(config)
    if got:
        mapped, locked = sum(g.mapped for g in got.values()), sum(g.locked for g in got.values())
        words += f"; {_size(locked)} of {_size(mapped)} of regions mapped by {len(got)} services are locked"
        if config.runtime.mlock and locked < mapped:
            short = min(got, key=lambda name: got[name].locked / max(1, got[name].mapped))
            words += f", least {short} with {_size(got[short].locked)} of {_size(got[short].mapped)}"
            return Finding("memory lock", FAIL, words, "raise LimitMEMLOCK of the unit to infinity and restart it")
    if not config.runtime.mlock:
        return Finding("memory lock", OK, f"{words}; not asked for (runtime.mlock)")
    if got or soft == resource.RLIM_INFINITY or soft > 1 << 30:
        return Finding("memory lock", OK, words)
    return Finding(
        "memory lock", FAIL, words, "runtime.mlock needs LimitMEMLOCK=infinity (units set it) or `ulimit -l unlimited`"
    )


def huge_pages(config: Config) -> Finding:
    """What the tmpfs gives a region of a few huge pages that is made for the purpose, and what services really have."""
    root = Path(config.instance.shm_root)
    try:
        trial = memory.trial(root)
    except OSError as error:
        return Finding("huge pages", WARN, f"{root}: {error.strerror}", "")
    got = granted_to(config)
    words = f"{root} gave {_size(trial.huge)} of {_size(trial.mapped)} asked for"
    if got:
        huge, mapped = sum(g.huge for g in got.values()), sum(g.mapped for g in got.values())
        words += f"; services have {_size(huge)} of {_size(mapped)} of their regions in huge pages"
    if trial.huge or config.instance.mode != "live":
        return Finding("huge pages", OK, words)
    return Finding("huge pages", WARN, words, f"mount -o remount,huge=advise {root} before the start: fewer TLB misses")


def open_files(config: Config) -> Finding:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft >= NOFILE_NEED:
        return Finding("open files", OK, str(soft))
    return Finding("open files", WARN, str(soft), f"`ulimit -n {NOFILE_NEED}` or more")


def shared_memory(config: Config) -> Finding:
    root = Path(config.instance.shm_root)
    try:
        free = shutil.disk_usage(root).free
    except OSError as error:
        return Finding("shared memory", FAIL, f"{root}: {error.strerror}", "mount a tmpfs there")
    used = sum(f.stat().st_size for f in config.shm_dir.glob("*") if f.is_file()) if config.shm_dir.is_dir() else 0
    words = f"{root} has {_size(free)} free" + (f", this instance uses {_size(used)}" if used else "")
    if free + used >= SHM_NEED:
        return Finding("shared memory", OK, words)
    return Finding("shared memory", FAIL, words, f"enlarge it: mount -o remount,size=1G {root} (containers: shm_size)")


def leftovers(config: Config) -> Finding:
    from shm.janitor import leftovers as found

    left = found(Path(config.instance.shm_root))
    if not left:
        return Finding("leftovers", OK, "none of earlier boots or crashed starts")
    words = "; ".join(f"{one.path.name}: {one.why}" for one in left)
    return Finding("leftovers", WARN, words, "the next `l2dash up` removes them")


def kernel_cache(config: Config) -> Finding:
    from engine.runtime.kernels import is_warm
    from shm.jit import cache_directory

    if is_warm():
        return Finding("kernel cache", OK, f"{cache_directory()}")
    return Finding("kernel cache", OK, "cold: the first start compiles for up to a minute", "l2dash compile")


def disk(config: Config) -> Finding:
    """Days until the disk is full at the configured tick rate, retention considered."""
    where = _existing(config.state_dir)
    free = shutil.disk_usage(where).free
    seconds = 86_400 if config.instance.mode == "sim" else SESSION_S
    a_day = config.paper.messages_per_s * BYTES_PER_TICK * seconds if config.recorder.record_ticks else 1 << 20
    days = (free - config.recorder.min_free_bytes) / a_day
    kept = config.recorder.retention_days
    words = f"{_size(free)} free at {where}: about {max(0.0, days):.0f} days of ticks, {kept} are kept"
    if free < config.recorder.min_free_bytes:
        return Finding("disk", FAIL, words, "entries are blocked below recorder.min_free_bytes: make room")
    if days < min(config.recorder.retention_days, 7):
        return Finding("disk", WARN, words, "lower recorder.retention_days or use a larger disk for instance.state_dir")
    return Finding("disk", OK, words)


def state_directory(config: Config) -> Finding:
    path = config.state_dir
    if not path.exists():
        hint = "" if config.instance.mode == "sim" else "l2dash init"
        return Finding("state", OK if not hint else WARN, f"{path} will be made", hint)
    if not os.access(path, os.W_OK):
        return Finding("state", FAIL, f"{path} is not writable", f"chown it to {os.getuid()}")
    mode = path.stat().st_mode & 0o077
    if mode:
        return Finding("state", WARN, f"{path} can be read by others", f"chmod 700 {path}")
    return Finding("state", OK, str(path))


def model(config: Config) -> Finding:
    from engine.model.bundle import BundleError, Registry

    try:
        found = Registry(config.state_dir / "models").load()
    except BundleError as error:
        if config.instance.mode == "sim":
            return Finding("model", OK, "none yet: the first start trains one")
        return Finding("model", FAIL, str(error), "l2dash up --collect, then l2dash retrain")
    words = f"version {found.version}, {found.provenance}"
    if found.provenance != "recorded" and config.instance.mode != "sim":
        return Finding(
            "model",
            FAIL,
            words,
            f"{config.instance.mode} refuses a synthetic model: l2dash up --collect, then l2dash retrain",
        )
    return Finding("model", OK, words)


def _port(name: str, key: str, host: str, port: int, config: Config) -> Finding:
    from engine.runtime.instance import living
    from engine.runtime.ports import holder

    found = holder(port, host) if port else ""
    if not found or living(config):
        return Finding(name, OK, f"{host}:{port} {'is ours' if found else 'is free'}")
    return Finding(name, FAIL, f"{host}:{port} is held by {found}", f"end it or change {key}")


def cockpit_port(config: Config) -> Finding:
    return _port("cockpit port", "cockpit.port", config.cockpit.host, config.cockpit.port, config)


def health_port(config: Config) -> Finding:
    return _port("health port", "cockpit.health_port", config.cockpit.health_host, config.cockpit.health_port, config)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
