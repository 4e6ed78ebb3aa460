"""Files derived from ``engine.topology``: systemd units, compose.yaml and docs/TOPOLOGY.md.

``python -m engine.generate`` writes them; ``--check`` only compares and exits 1 naming each file that has drifted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import topology
from engine.topology import Service

ROOT = Path(__file__).resolve().parent.parent
HOME = "/opt/l2-dash"
CURRENT = f"{HOME}/current"
"""The version that serves: a link into releases/, which ops/upgrade.sh and ops/rollback.sh turn."""
DATA = f"{HOME}/data"
PROGRAM = f"{CURRENT}/.venv/bin/l2dash"
STOP_S = 20
"""A service's orderly end may take this long (bridge LEAVING)."""
NOTE = "# Generated from engine/topology.py by `python -m engine.generate`; a test fails when it has drifted.\n"

_HARDENING = f"""\
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/dev/shm {DATA} -/backups
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=no
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=no
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
"""

_ENVIRONMENT = f"""\
User=l2dash
Group=l2dash
WorkingDirectory={HOME}
Environment=L2DASH_CONFIG={CURRENT}/config/sim.toml
Environment=L2DASH_STATE_DIR={DATA}
Environment=L2DASH_BACKUP_DIR=/backups
Environment=L2DASH_CACHE_DIR={DATA}/cache
Environment=MALLOC_ARENA_MAX=1
Environment=PYTHONUNBUFFERED=1
# What differs between hosts (L2DASH_CONFIG, L2DASH_LIVE=1) and secrets (TRADING_TOKEN, L2DASH_ALERT_*).
EnvironmentFile=-/etc/default/l2dash
EnvironmentFile=-/etc/l2dash/secrets.env
"""

FAIL_CLOSED = (topology.ALGO, topology.ML)
"""Stay down while the watchdog is down. Not the bridge: without a watchdog it must cancel and flatten."""


def unit_name(service: str) -> str:
    return f"l2dash-{service}.service"


def _service_unit(s: Service) -> str:
    after = ["l2dash-regions.service", *(unit_name(a) for a in s.after)]
    bound = s.name in FAIL_CLOSED
    if bound:
        after.append(unit_name(topology.WATCHDOG))
    lines = [
        NOTE.rstrip(),
        "[Unit]",
        f"Description=L2 DASH {s.name}: {s.does}",
        "PartOf=l2dash.target l2dash-regions.service",
        "Requires=l2dash-regions.service",
        f"After={' '.join(dict.fromkeys(after))}",
    ]
    if bound:
        lines.append(f"BindsTo={unit_name(topology.WATCHDOG)}")
    lines += [
        "# More than three starts in a minute: it stays down, and people are told.",
        "StartLimitIntervalSec=60",
        "StartLimitBurst=3",
        "OnFailure=l2dash-alert@%p.service",
        "",
        "[Service]",
        "Type=notify",
    ]
    if s.modes != ("sim", "paper", "live"):
        lines.append(f"ExecCondition={PROGRAM} config check --runs {s.name}")
    if s.name == topology.ML:
        lines.append(f"ExecStartPre={PROGRAM} models first")
    lines += [
        f"ExecStart={PROGRAM} run {s.name}",
        f"TimeoutStartSec={int(s.ready_s) + 60}",
        f"TimeoutStopSec={STOP_S}",
        f"WatchdogSec={2 if s.hot else 10}",
        "WatchdogSignal=SIGKILL",
        "Restart=on-failure",
        "RestartSec=1",
        "# 2: wrong arguments, 3: refused for a reason that only a person can remove.",
        "RestartPreventExitStatus=2 3",
        "KillMode=mixed",
        f"OOMScoreAdjust={-900 if s.hot else -300}",
        *([f"Nice={-10}"] if s.hot else []),
        "LimitMEMLOCK=infinity",
        "LimitNOFILE=65536",
        _ENVIRONMENT.rstrip(),
        _HARDENING.rstrip(),
        "",
        "[Install]",
        "WantedBy=l2dash.target",
        "",
    ]
    return "\n".join(lines)


def _oneshot(description: str, body: str, unit: str = "") -> str:
    head = f"{NOTE}[Unit]\nDescription=L2 DASH {description}\n{unit}\n"
    return f"{head}[Service]\nType=oneshot\n{body}{_ENVIRONMENT}{_HARDENING}"


def systemd() -> dict[str, str]:
    """Unit files by name."""
    units = {unit_name(s.name): _service_unit(s) for s in topology.SERVICES}
    wants = " ".join(unit_name(s.name) for s in topology.SERVICES)
    units["l2dash.target"] = (
        f"{NOTE}[Unit]\nDescription=L2 DASH\nRequires=l2dash-regions.service\nWants={wants}\n"
        "Wants=l2dash-backup.timer\nAfter=network-online.target\nWants=network-online.target\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    units["l2dash-regions.service"] = _oneshot(
        "shared memory and compiled kernels",
        f"RemainAfterExit=yes\nTimeoutStartSec=300\nExecStart={PROGRAM} compile\nExecStart={PROGRAM} regions create\n",
        "PartOf=l2dash.target\n",
    )
    units["l2dash-backup.service"] = _oneshot(
        "nightly backup",
        f"ExecStart={PROGRAM} backup\nTimeoutStartSec=2h\nNice=10\nIOSchedulingClass=idle\n",
        "OnFailure=l2dash-alert@%p.service\n",
    )
    units["l2dash-backup.timer"] = (
        f"{NOTE}[Unit]\nDescription=L2 DASH nightly backup\nPartOf=l2dash.target\n\n"
        "[Timer]\nOnCalendar=*-*-* 02:00:00 UTC\n"
        "AccuracySec=1s\nPersistent=true\n\n[Install]\nWantedBy=l2dash.target\n"
    )
    units["l2dash-alert@.service"] = _oneshot(
        "alert that %i stays down", f'ExecStart={PROGRAM} alert --severity P1 "%i failed and stays down"\n'
    )
    return units


_COMPOSE_HEAD = """\
# Every service waits for what it needs, has a healthcheck, and keeps its data in bind mounts, so that no
# `down -v` can erase anything. The paper gateway belongs to the profile `sim` (see .env).
name: l2-dash

x-service: &service
  image: l2-dash
  build:
    context: .
    dockerfile: Containerfile
    secrets: [pip.conf, ca.pem]
  pull_policy: build
  network_mode: host
  pid: host
  stop_grace_period: 30s
  restart: on-failure
  read_only: true
  cap_drop: [ALL]
  # IPC_LOCK lifts the limit of locked memory: no ulimit is needed, and hosts that refuse to raise one still run it.
  cap_add: [SYS_NICE, IPC_LOCK]
  security_opt: ["no-new-privileges:true"]
  tmpfs: [/tmp]
  environment: &environment
    L2DASH_CONFIG: ${L2DASH_CONFIG:-config/sim.toml}
    L2DASH_LIVE: ${L2DASH_LIVE:-}
    L2DASH_INSTANCE: ${L2DASH_INSTANCE:-}
    L2DASH_STATE_DIR: /opt/l2-dash/data
    L2DASH_BACKUP_DIR: /backups
    L2DASH_CACHE_DIR: /opt/l2-dash/data/cache
    # As under systemd, something keeps what services say: `docker compose logs -f` shows more than warnings.
    INVOCATION_ID: container
    TRADING_TOKEN: ${TRADING_TOKEN:-}
    L2DASH_ALERT_P1: ${L2DASH_ALERT_P1:-}
    L2DASH_ALERT_P2: ${L2DASH_ALERT_P2:-}
    L2DASH_ALERT_ROUTINE: ${L2DASH_ALERT_ROUTINE:-}
  volumes:
    - {type: bind, source: /dev/shm, target: /dev/shm}
    - {type: bind, source: ./data, target: /opt/l2-dash/data, bind: {create_host_path: true}}
    - {type: bind, source: ./config, target: /opt/l2-dash/config, read_only: true}
    - {type: bind, source: "${L2DASH_BACKUPS:-/backups}", target: /backups, bind: {create_host_path: true}}

# Lent to the build for one step, kept nowhere: this host's way to packages, where it has one of its own.
secrets:
  pip.conf: {file: "${L2DASH_PIP_CONF:-/dev/null}"}
  ca.pem: {file: "${L2DASH_CA_FILE:-/dev/null}"}

services:
  regions:
    <<: *service
    # After an orderly stop the memory goes: a newer image may lay it out anew. After a kill it stays for the recorder.
    command:
      - sh
      - -c
      - >-
        l2dash compile && l2dash regions create || exit;
        l2dash regions keep & trap "kill $$!; l2dash regions remove; exit 0" TERM INT;
        wait
    healthcheck:
      test: ["CMD", "l2dash", "health", "regions"]
      interval: 10s
      timeout: 5s
      retries: 3
      start_period: 300s
"""


def _compose_service(s: Service) -> str:
    command = f'["l2dash", "run", "{s.name}"]'
    if s.name == topology.ML:
        command = f'["sh", "-c", "l2dash models first && exec l2dash run {s.name}"]'
    lines = [f"  {s.name}:", "    <<: *service", f"    command: {command}"]
    if s.modes == ("sim",):
        lines.append("    profiles: [sim]")
    lines += ["    depends_on:", "      regions: {condition: service_healthy}"]
    for name in s.after:
        optional = ", required: false" if topology.service(name).modes == ("sim",) else ""
        lines.append(f"      {name}: {{condition: service_healthy{optional}}}")
    lines += [
        "    healthcheck:",
        f'      test: ["CMD", "l2dash", "health", "{s.name}"]',
        "      interval: 5s",
        "      timeout: 5s",
        "      retries: 3",
        f"      start_period: {int(s.ready_s) + 60}s",
    ]
    return "\n".join(lines) + "\n"


def compose() -> str:
    """compose.yaml."""
    parts = [NOTE, _COMPOSE_HEAD, *(_compose_service(s) for s in topology.SERVICES)]
    parts.append(
        "  backup:\n    <<: *service\n"
        '    command: ["l2dash", "backup", "--every-day-at", "02:00"]\n'
        "    depends_on:\n      regions: {condition: service_healthy}\n"
        "    healthcheck:\n"
        '      test: ["CMD", "l2dash", "health", "backup"]\n'
        "      interval: 60s\n      timeout: 5s\n      retries: 3\n      start_period: 60s\n"
    )
    return "\n".join(parts)


def topology_page() -> str:
    """docs/TOPOLOGY.md."""
    rows = ["| service | does | hot | starts after | modes |", "| --- | --- | --- | --- | --- |"]
    for s in topology.SERVICES:
        rows.append(f"| {s.name} | {s.does} | {'yes' if s.hot else ''} | {', '.join(s.after)} | {', '.join(s.modes)} |")
    rings = [
        "| ring | record | slots | writer | gating readers | lossy readers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in topology.RINGS:
        rings.append(
            f"| {r.name} | {r.record} | {r.capacity} | {r.writer} | {', '.join(r.gate)} | {', '.join(r.lossy)} |"
        )
    cells = ["| cell | record | count | writer | readers |", "| --- | --- | --- | --- | --- |"]
    for c in topology.CELLS:
        cells.append(f"| {c.name} | {c.record} | {c.count} | {c.writer} | {', '.join(c.readers)} |")
    return "\n".join(
        [
            "<!-- Generated from engine/topology.py by `python -m engine.generate`; a test fails on drift. -->",
            "# Topology",
            "",
            "Who writes what, and who reads it. A gating reader is never overwritten: the writer is told that the ring",
            "is full. A lossy reader that is too slow learns exactly how many records it lost.",
            "",
            "## Services, in start order",
            "",
            *rows,
            "",
            "## Rings",
            "",
            *rings,
            "",
            "## Cells (latest value)",
            "",
            *cells,
            "",
            "## Picture",
            "",
            "Thick arrows gate. Event rings (every service to recorder and cockpit) are left out.",
            "",
            "```mermaid",
            topology.mermaid().rstrip(),
            "```",
            "",
        ]
    )


def files() -> dict[Path, str]:
    """Every generated file by its path from the root."""
    found = {Path("systemd") / name: text for name, text in systemd().items()}
    found[Path("compose.yaml")] = compose()
    found[Path("docs/TOPOLOGY.md")] = topology_page()
    return found


def drifted(root: Path = ROOT) -> list[str]:
    """Generated files that are missing, differ, or should not exist any more."""
    wanted = files()
    wrong = [str(p) for p, text in wanted.items() if not (root / p).is_file() or (root / p).read_text() != text]
    stray = {p.relative_to(root) for p in (root / "systemd").glob("l2dash*")} - set(wanted)
    return sorted(wrong + [str(p) for p in stray])


def write(root: Path = ROOT) -> list[Path]:
    """Write every file that has drifted and remove strays; returns what changed."""
    changed = [Path(name) for name in drifted(root)]
    wanted = files()
    for path in changed:
        if path in wanted:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(wanted[path])
        else:
            (root / path).unlink()
    return changed


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        wrong = drifted()
        for name in wrong:
            sys.stderr.write(f"{name} has drifted from engine/topology.py: run python -m engine.generate\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: python -m engine.generate [--check]\n")
        return 2
    for path in write():
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
