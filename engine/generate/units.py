"""systemd units, derived from ``engine.topology``."""

from __future__ import annotations

from engine import topology
from engine.generate.note import NOTE
from engine.topology import Service

HOME = "/opt/l2-dash"
CURRENT = f"{HOME}/current"
"""The version that serves: a link into releases/, which ops/upgrade.sh and ops/rollback.sh turn."""
DATA = f"{HOME}/data"
PROGRAM = f"{CURRENT}/.venv/bin/l2dash"
STOP_S = 20
"""A service's orderly end may take this long (bridge LEAVING)."""


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
        *(["LimitRTPRIO=1"] if s.name == topology.WATCHDOG else []),
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
