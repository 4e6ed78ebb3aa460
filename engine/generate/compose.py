"""compose.yaml, derived from ``engine.topology``."""

from __future__ import annotations

from engine import topology
from engine.generate.note import NOTE
from engine.topology import Service

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
