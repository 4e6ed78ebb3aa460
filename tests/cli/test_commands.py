"""Commands at the edges: arguments, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from engine.broker import emergency
from engine.cli import flatten, health, kill, logs, preopen, settings, storage
from engine.cli.errors import CliError, Refused, run
from engine.config import Config
from engine.domain.codes import ServiceState
from engine.risk import latch
from engine.runtime.heartbeat import Heartbeat
from engine.runtime.testing import TestInstance

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["nonsense"], 2, "nonsense"),
        (["order", "AAPL", "BUY", "0"], 2, "QTY"),
        (["order", "AAPL", "BUY", "1", "--limit", "nan"], 2, "--limit"),
        (["order", "AAPL", "HOLD", "1"], 2, "HOLD"),
        (["cancel"], 2, "--all"),
        (["cancel", "12345"], 2, "L2:"),
        (["backup", "--every-day-at", "25:00"], 2, "02:00"),
        (["bench", "nothing"], 2, "there are"),
        (["config", "check", "/nonexistent.toml"], 2, "nonexistent"),
        (["up", "--live"], 2, "mode is sim"),
        (["up", "--mode", "live"], 3, "--live"),
    ],
)
def test_wrong_arguments_get_one_line_and_their_exit_code(
    cli: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, word: str
) -> None:
    for variable in ("L2DASH_CONFIG", "L2DASH_LIVE"):
        monkeypatch.delenv(variable, raising=False)
    found, said = cli(*arguments)
    assert found == code, said
    assert word in said
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "command", ["status", "positions", "pause", "resume", "reset", "reconnect", "flatten", "down", "preopen"]
)
def test_commands_without_an_instance_exit_three_and_say_how_to_start_one(
    cli: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("L2DASH_INSTANCE", "surely-not-there")
    assert cli(command) == (3, "l2dash: no instance is up: start one with `l2dash up`\n")


def test_an_unknown_key_of_the_configuration_is_refused_with_its_line(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[instance]\nmode = "sim"\nmood = "good"\n')
    code, said = cli("config", "check", str(path))
    assert code == 2
    assert "c.toml:3" in said
    assert "mood" in said


def test_an_unexpected_error_is_one_line_with_its_type() -> None:
    @click.command()
    def broken() -> None:
        raise KeyError("x")

    assert run(broken, []) == 1


def test_directories_come_out_absolute_so_that_any_directory_can_address_the_instance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("L2DASH_CONFIG", "L2DASH_STATE_DIR", "L2DASH_BACKUP_DIR", "L2DASH_INSTANCE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    config = settings.starting(None)
    assert config.state_dir == tmp_path / "var"
    assert config.instance.backup_dir == str(tmp_path / "var/backups")


def test_the_environment_overrides_the_files_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("L2DASH_STATE_DIR", str(tmp_path / "elsewhere"))
    assert settings.starting(ROOT / "config/staging.toml").state_dir == tmp_path / "elsewhere"


def test_init_arms_a_new_directory_once(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("L2DASH_STATE_DIR", str(tmp_path / "state"))
    paper = str(ROOT / "config/paper.toml")
    assert cli("init", "--config", paper)[0] == 0
    assert not latch.load(tmp_path / "state", "paper", 1, 1).kill
    assert cli("init", "--config", paper)[0] == 3


def test_config_check_tells_units_which_services_a_mode_runs(cli: Any) -> None:
    assert cli("config", "check", "--runs", "paper-gateway", str(ROOT / "config/sim.toml"))[0] == 0
    assert cli("config", "check", "--runs", "paper-gateway", str(ROOT / "config/paper.toml"))[0] == 3


def test_topology_as_json_lists_every_service(cli: Any) -> None:
    code, said = cli("topology", "--json")
    assert code == 0
    assert {"broker-bridge", "watchdog"} <= {s["name"] for s in json.loads(said)["services"]}


def beat(private: TestInstance, service: str, state: ServiceState, at_ns: int) -> None:
    context = private.context(service)
    Heartbeat(context.cell_writer(f"heartbeat.{service}"), at_ns).set_state(state, at_ns)


def test_health_reads_the_same_words_that_the_heartbeat_writes(private: TestInstance) -> None:
    at = time.monotonic_ns()
    beat(private, "algo", ServiceState.READY, at)
    pid, ticks, state, t_beat = health.heartbeat_words(private.config.shm_dir, "algo")
    assert (pid, state, t_beat) == (os.getpid(), health.READY, at)
    assert ticks > 0


def check_health(private: TestInstance, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setattr(health, "SHM_ROOT", private.config.instance.shm_root)
    assert health.health.callback is not None
    health.health.callback(private.config.instance.name, service)


def test_health_passes_for_a_service_that_is_ready_and_beats(
    private: TestInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat(private, "algo", ServiceState.READY, time.monotonic_ns())
    check_health(private, monkeypatch, "algo")
    check_health(private, monkeypatch, "regions")


@pytest.mark.parametrize(
    ("state", "age_ns", "word"),
    [(ServiceState.WARMING, 0, "not READY"), (ServiceState.READY, 6_000_000_000, "not beaten")],
)
def test_health_fails_for_a_service_that_warms_up_or_hangs(
    private: TestInstance, monkeypatch: pytest.MonkeyPatch, state: ServiceState, age_ns: int, word: str
) -> None:
    beat(private, "algo", state, time.monotonic_ns() - age_ns)
    with pytest.raises(CliError, match=word):
        check_health(private, monkeypatch, "algo")


def test_health_fails_for_a_service_that_never_ran_or_is_unknown(
    private: TestInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CliError, match="does not run"):
        check_health(private, monkeypatch, "algo")
    with pytest.raises(Refused, match="nonesuch"):
        check_health(private, monkeypatch, "nonesuch")


def sleeper(private: TestInstance, service: str) -> subprocess.Popen[bytes]:
    """A process that beats once as ``service`` and then hangs."""
    script = (
        "import sys, time, os, signal\n"
        "from engine.config import load\nfrom engine.runtime.context import Context\nfrom pathlib import Path\n"
        f"c = Context(load(Path({str(private.config.shm_dir / 'config.toml')!r})), {service!r})\n"
        "c.start_heartbeat(c.clock.now_ns())\nprint('up', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_kill_ends_a_hung_process_latches_first_and_erases_nothing(private: TestInstance, cli: Any) -> None:
    hung = sleeper(private, "algo")
    journal = private.config.state_dir / "journal.db"
    journal.write_bytes(b"kept")
    try:
        code, said = cli("kill")
        assert hung.wait(10) == -9
    finally:
        hung.kill()
    assert code == 0
    assert said.index("KILL latched") < said.index("ended: algo")
    assert "l2dash kill" in latch.parse((private.config.state_dir / "latch.json").read_text()).kill_text
    assert journal.read_bytes() == b"kept"
    assert private.config.shm_dir.is_dir()


def test_kill_ends_and_flattens_also_when_the_latch_cannot_be_written(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state_dir: Path, what: latch.Latch) -> None:
        raise OSError(28, "No space left on device")

    flattened: list[Config] = []
    monkeypatch.setattr(latch, "save", full)
    monkeypatch.setattr(flatten, "flatten_directly", lambda config: flattened.append(config) or 0)
    hung = sleeper(private, "algo")
    try:
        code, said = cli("kill", "--flatten")
        assert hung.wait(10) == -9
    finally:
        hung.kill()
    assert code == 1
    assert len(flattened) == 1
    assert "KILL latched\n" not in said
    assert said.index("latch NOT written: [Errno 28] No space left on device") < said.index("ended: algo")
    assert "The next start is NOT latched" in said.splitlines()[-1]


def test_kill_latches_at_the_end_when_the_disk_has_room_again(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, tried = latch.save, []

    def full_once(state_dir: Path, what: latch.Latch) -> None:
        tried.append(what)
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        save(state_dir, what)

    monkeypatch.setattr(latch, "save", full_once)
    code, said = cli("kill")
    assert code == 0
    assert "the next start is KILLED" in said.splitlines()[-1]
    assert latch.parse((private.config.state_dir / "latch.json").read_text()).kill


def test_kill_on_a_full_disk_counts_a_file_that_says_kill_already(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state_dir: Path, what: latch.Latch) -> None:
        raise OSError(28, "No space left on device")

    latch.save(private.config.state_dir, latch.Latch(kill=True, boot_id="of another boot"))
    monkeypatch.setattr(latch, "save", full)
    code, said = cli("kill")
    assert (code, "the next start is KILLED" in said) == (0, True)


@pytest.mark.parametrize("dies", [True, False])
def test_the_last_word_of_a_dying_watchdog_does_not_lift_the_latch_of_kill(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    def late(config: Config, spared: tuple[str, ...]) -> list[str]:
        latch.save(config.state_dir, latch.Latch(boot_id=latch.boot_id()))
        if not dies:
            raise CliError("does not die: watchdog pid 1")
        return ["watchdog (pid 1)"]

    monkeypatch.setattr(kill, "end_everything", late)
    code, _ = cli("kill")
    assert code == (0 if dies else 1)
    assert latch.parse((private.config.state_dir / "latch.json").read_text()).kill


def test_kill_says_what_remains_at_the_broker(private: TestInstance, cli: Any) -> None:
    positions = private.context("broker-bridge").cell_writer("positions")
    positions.value[3]["qty"] = -7.0
    positions.publish(3)
    # Services of this very process must not be killed by the test: nobody beats, so nobody is alive.
    code, said = cli("kill")
    assert code == 0
    assert "GOOGL -7" in said
    assert "l2dash flatten --direct" in said


@pytest.mark.parametrize("service", ["broker-bridge", "watchdog"])
def test_a_direct_flatten_ends_whoever_else_may_send_first(
    private: TestInstance, cli: Any, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = sleeper(private, service)
    found: list[Any] = []

    def direct(config: Any, say: Any) -> Any:
        found.append(hung.poll())
        return emergency.Result(True, (), 1, 0.1, "flat")

    monkeypatch.setattr(emergency, "flatten_direct", direct)
    code, said = cli("flatten", "--direct")
    assert code == 0
    assert found == [-9], "nobody but this hand sends"
    assert said.index(f"{service} (pid {hung.pid}) may send too") < said.index("KILL latched")
    assert "flat, confirmed by the broker" in said
    assert latch.parse((private.config.state_dir / "latch.json").read_text()).kill


def test_a_direct_flatten_ends_who_would_restart_a_sender_first(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import fcntl, os, sys, time\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\nos.write(fd, str(os.getpid()).encode())\nprint('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    lock = private.config.state_dir / "supervisor.lock"
    supervisor = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"up\n"
    found: list[Any] = []

    def direct(config: Any, say: Any) -> Any:
        found.append(supervisor.wait(5))
        return emergency.Result(True, (), 1, 0.1, "flat")

    monkeypatch.setattr(emergency, "flatten_direct", direct)
    code, said = cli("flatten", "--direct")
    assert code == 0
    assert found == [-9]
    assert f"supervisor (pid {supervisor.pid}) may send too" in said


def test_a_direct_flatten_with_nobody_alive_latches_nothing(
    private: TestInstance, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emergency, "flatten_direct", lambda *_: emergency.Result(True, (), 0, 0.1, "flat"))
    assert cli("flatten", "--direct")[0] == 0
    assert not (private.config.state_dir / "latch.json").exists()


def test_kill_of_one_service_latches_nothing(private: TestInstance, cli: Any) -> None:
    hung = sleeper(private, "cockpit")
    code, _ = cli("kill", "cockpit")
    assert hung.wait(10) == -9
    assert code == 0
    assert not (private.config.state_dir / "latch.json").exists()


def test_logs_are_merged_by_time_and_followed_through_a_rotation(tmp_path: Path) -> None:
    def line(second: int, text: str) -> str:
        return (
            json.dumps({"time": f"2024-01-02T00:00:{second:02d}", "level": "INFO", "service": "s", "message": text})
            + "\n"
        )

    path = tmp_path / "algo.log"
    path.write_text(line(1, "one") + line(2, "two"))
    follower = logs.Follower(path)
    assert [logs.as_text(text).split()[-1] for _, text in follower.last(1)] == ["two"]
    with path.open("a") as file:
        file.write(line(3, "three") + line(4, "cut")[:10])
    assert [logs.as_text(text).split()[-1] for _, text in follower.new()] == ["three"]
    path.rename(tmp_path / "algo.log.1")
    path.write_text(line(5, "rotated"))
    assert [logs.as_text(text).split()[-1] for _, text in follower.new()] == ["rotated"]


@pytest.mark.parametrize(
    ("hour", "have", "owed"),
    [(1, [], False), (2, [], True), (14, [], True), (14, ["2024-01-02"], False), (14, ["2024-01-01"], True)],
)
def test_a_backup_is_owed_once_a_day_after_its_time_also_when_it_was_missed(
    hour: int, have: list[str], owed: bool
) -> None:
    assert storage.due(datetime(2024, 1, 2, hour, 0, tzinfo=UTC), 2, 0, have) is owed


def healthy_state() -> dict[str, Any]:
    return {
        "mode": "PAPER",
        "services": [{"name": "algo", "healthy": True}],
        "connectivity": {"link": "UP", "rtt_ms": 3.0, "gateway": "h:1", "reconciled": True, "farms_down": 0},
        "account": {"account": "DU1", "matches_mode": True, "day_start_usd": 1000.0},
        "quotes": [{"symbol": "AAPL", "session_open": True, "tradable": True, "valid": True}],
        "trading_state": {"state": "ACTIVE", "reasons": []},
        "guardrails": [{"name": "POS", "state": "OK"}],
        "positions": [{"symbol": "AAPL", "qty": 0.0}],
    }


def test_preopen_is_content_with_a_healthy_system() -> None:
    assert {f.status for f in preopen.judge(healthy_state())} == {"ok"}


@pytest.mark.parametrize(
    ("section", "value", "check"),
    [
        ("services", [{"name": "algo", "healthy": False}], "services"),
        ("account", {"account": "U1", "matches_mode": False, "day_start_usd": 1000.0}, "account"),
        ("account", {"account": "DU1", "matches_mode": True, "day_start_usd": None}, "day start"),
        ("quotes", [{"symbol": "AAPL", "session_open": True, "tradable": True, "valid": False}], "books"),
        ("guardrails", [{"name": "POS", "state": "TRIPPED"}], "badges"),
    ],
)
def test_preopen_names_what_must_be_done(section: str, value: Any, check: str) -> None:
    findings = {f.check: f for f in preopen.judge({**healthy_state(), section: value})}
    assert findings[check].status == "fail"
    assert findings[check].fix


def test_doctor_warns_of_what_another_process_holds(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from engine.cli import doctor

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "c.toml"
        path.write_text(f'[instance]\nname = "doctored"\n[cockpit]\nport = {port}\n')
        monkeypatch.setenv("L2DASH_STATE_DIR", str(tmp_path))
        monkeypatch.delenv("L2DASH_INSTANCE", raising=False)
        finding = doctor.cockpit_port(settings.starting(path))
    assert finding.status == "fail"
    assert str(os.getpid()) in finding.found


def test_up_names_the_holder_of_a_port_and_exits_one(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.delenv("L2DASH_INSTANCE", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = tmp_path / "c.toml"
        path.write_text(
            f'[instance]\nname = "doctored"\nstate_dir = "{tmp_path}"\n[gateway]\nport = {taken.getsockname()[1]}\n'
        )
        code, said = cli("up", "--config", str(path))
    assert code == 1
    assert f"pid {os.getpid()}" in said
    assert "gateway.port" in said
    assert len(said.strip().splitlines()) == 1


def test_default_configuration_is_what_starts_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("L2DASH_CONFIG", "L2DASH_STATE_DIR", "L2DASH_BACKUP_DIR", "L2DASH_INSTANCE"):
        monkeypatch.delenv(variable, raising=False)
    assert settings.starting(None).limits == Config().limits
