"""Configuration: one TOML file, every knob with a default, unknown keys and impossible values refused with the line.

``config/default.toml`` explains each knob; this file is its schema. Values are frozen; secrets never stand here, they
come from the environment or from systemd credentials (see ``engine.runtime.secrets``).
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


INDEX_WINDOW_MAX_S = 318.0
"""The watchdog keeps 320 s of the index in buckets of 100 ms."""


class ConfigError(Exception):
    """The configuration can't be used; the text names file, line, key, value and what is allowed."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Instance(Section, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")] = "default"
    mode: Literal["sim", "paper", "live"] = "sim"
    state_dir: str = "var"
    shm_root: str = "/dev/shm"
    backup_dir: str = "var/backups"


class Symbol(Section, frozen=True):
    symbol: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9. ]{0,11}$")]
    exchange: str = "SMART"
    primary_exchange: str = ""
    currency: Literal["USD"] = "USD"


class Universe(Section, frozen=True):
    stocks: tuple[Symbol, ...] = ()
    """Empty: the paper market's 8 stocks in sim, its first 3 in paper and live."""
    index: Literal["INDU", "DIA", "none"] = "INDU"
    depth_rows: Annotated[int, Meta(ge=1, le=10)] = 10


class Gateway(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 4002
    second_host: str = ""
    """A second gateway of the same account, for getting flat when the first does not serve; empty: none."""
    second_port: Port = 4002
    client_id: Annotated[int, Meta(ge=1)] = 11
    emergency_client_id: Annotated[int, Meta(ge=1)] = 12
    account: str = "DUSIM001"
    account_scope: Literal["", "dedicated", "managed"] = ""
    """Empty counts as "dedicated" in sim; paper and live refuse to become ACTIVE until it is answered."""
    messages_per_s: Annotated[int, Meta(ge=5, le=45)] = 45
    reserved_per_s: Annotated[int, Meta(ge=1, le=40)] = 20
    emergency_messages_per_s: Annotated[int, Meta(ge=1, le=5)] = 5
    probe_interval_s: Annotated[float, Meta(ge=1.5)] = 1.5
    reconnect_min_s: Positive = 0.25
    reconnect_max_s: Positive = 10.0
    request_timeout_s: Positive = 4.0
    reset_windows: tuple[str, ...] = ("00:15-01:45 America/New_York",)

    @property
    def others(self) -> tuple[tuple[str, int], ...]:
        """Gateways that are tried when the first does not serve."""
        return ((self.second_host, self.second_port),) if self.second_host else ()


class Limits(Section, frozen=True):
    """Gate caps and account limits, USD. The gate's caps lie 10 % under the breakers'."""

    max_position_usd: Positive = 500_000.0
    symbol_exposure_pct: Percent = 20.0
    gate_margin_pct: Annotated[float, Meta(ge=0, lt=100)] = 10.0
    order_notional_usd: Positive = 50_000.0
    order_qty: Positive = 5_000.0
    collar_pct: Percent = 5.0
    active_orders_per_side: Annotated[int, Meta(ge=1, le=20)] = 20
    orders_per_s: Annotated[int, Meta(ge=1, le=50)] = 20
    order_efficiency: Positive = 20.0
    order_efficiency_from: Count = 1_000
    duplicate_window_s: Seconds = 0.2
    repeated_executions: Count = 20
    repeated_window_s: Positive = 10.0
    allow_short: bool = True

    @property
    def breaker_symbol_usd(self) -> float:
        return self.max_position_usd * self.symbol_exposure_pct / 100.0

    @property
    def gate_symbol_usd(self) -> float:
        return self.breaker_symbol_usd * (1.0 - self.gate_margin_pct / 100.0)

    @property
    def gate_gross_usd(self) -> float:
        return self.max_position_usd * (1.0 - self.gate_margin_pct / 100.0)


class Guardrails(Section, frozen=True):
    """Thresholds of the eight badges: the runbook's are the defaults."""

    warn_share: Share = 0.8
    spread_bps: Positive = 25.0
    spread_median_factor: Positive = 4.0
    crossed_s: Positive = 0.5
    spread_warn_s: Positive = 30.0
    unknown_grace_s: Seconds = 10.0
    trades_per_s: Positive = 50.0
    intents_per_s: Positive = 50.0
    rate_sustained_s: Positive = 3.0
    rtt_ms: Positive = 500.0
    rtt_bad_samples: Annotated[int, Meta(ge=1, le=5)] = 3
    mute_s: Positive = 2.0
    stream_gone_s: Positive = 3.0
    drawdown_usd: Positive = 5_000.0
    drawdown_pct: Percent = 5.0
    drawdown_from: Literal["start", "peak", "both"] = "both"
    equity_divergence_pct: Percent = 0.2
    index_move_pct: Percent = 5.0
    index_window_s: Positive = 300.0
    index_stale_s: Positive = 15.0
    confidence: Share = 0.7
    confidence_symbols: Count = 5
    confidence_block_s: Seconds = 10.0
    confidence_kill_s: Seconds = 60.0
    invalid_share: Share = 0.15
    drift_pct: Percent = 2.0
    drift_s: Seconds = 1.0
    drift_scope: Literal["all", "symbol"] = "all"
    stale_min_s: Positive = 5.0
    stale_factor: Positive = 20.0
    unmarked_kill_s: Positive = 60.0
    link_down_kill_s: Positive = 60.0
    reconnect_flatten_outage_s: Positive = 600.0
    cooling_s: Seconds = 300.0
    lease_renew_ms: Positive = 50.0
    lease_expiry_ms: Positive = 250.0
    watchdog_gone_s: Positive = 5.0
    bridge_grace_s: Positive = 15.0
    leaving_s: Positive = 20.0
    algo_silent_s: Positive = 1.0
    recorder_behind_share: Share = 0.5


class Strategy(Section, frozen=True):
    enabled: bool = True
    symbol_usd: Positive = 40_000.0
    gross_usd: Positive = 300_000.0
    order_usd: Positive = 6_000.0
    daily_stop_usd: Positive = 2_500.0
    min_confidence: Share = 0.7
    entry_imbalance: Share = 0.35
    hold_s: Positive = 20.0
    order_ttl_s: Positive = 3.0
    cooldown_s: Seconds = 2.0


class Model(Section, frozen=True):
    states: Annotated[int, Meta(ge=1, le=8)] = 3
    bar_s: Positive = 10.0
    confidence_ema_s: Positive = 60.0
    fair_value_s: Positive = 300.0
    warmup_s: Annotated[float, Meta(ge=1)] = 300.0
    warmup_min_s: Annotated[float, Meta(ge=1)] = 30.0
    train_hours: Positive = 1.0
    train_seed: int = 7
    restarts: Count = 5


class Recorder(Section, frozen=True):
    retention_days: Count = 30
    segment_bytes: Count = 64 * 1024 * 1024
    sync_s: Positive = 1.0
    min_free_bytes: Count = 512 * 1024 * 1024
    record_ticks: bool = True


class Cockpit(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 3000
    health_host: str = "127.0.0.1"
    health_port: Port = 8080
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxy: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    frames_per_s: Annotated[int, Meta(ge=1, le=60)] = 20
    arm_idle_s: Positive = 900.0
    kill_on_stream_gone: bool = False


class Paper(Section, frozen=True):
    seed: int = 20_240_102
    market: str = "synthetic"
    start: str = "09:30"
    messages_per_s: Positive = 1_000.0
    equity_usd: Positive = 1_000_000.0
    max_depth_lines: Count = 16
    latency_ms: Seconds = 0.0
    control_port: Port = 0
    faults: str = ""
    state_file: str = ""
    """Where the gateway keeps its account; empty: in the state directory."""


class Runtime(Section, frozen=True):
    placement: Literal["auto", "dedicated", "shared"] = "auto"
    wait: Literal["auto", "busy-spin", "spin-then-yield", "spin-then-futex", "yield", "doorbell"] = "auto"
    poll_socket: Literal["auto", "always", "never"] = "auto"
    pin: bool = True
    mlock: bool = False
    housekeeping_ms: Positive = 20.0
    hot_nice: Annotated[int, Meta(ge=-20, le=19)] = -10
    realtime: bool = True


class Alerts(Section, frozen=True):
    """Apprise URLs come from the environment: L2DASH_ALERT_P1, L2DASH_ALERT_P2, L2DASH_ALERT_ROUTINE."""

    repeat_s: Positive = 300.0
    deadman_url: str = ""


class Config(Section, frozen=True):
    instance: Instance = Instance()
    universe: Universe = Universe()
    gateway: Gateway = Gateway()
    limits: Limits = Limits()
    guardrails: Guardrails = Guardrails()
    strategy: Strategy = Strategy()
    model: Model = Model()
    recorder: Recorder = Recorder()
    cockpit: Cockpit = Cockpit()
    paper: Paper = Paper()
    runtime: Runtime = Runtime()
    alerts: Alerts = Alerts()

    @property
    def state_dir(self) -> Path:
        return Path(self.instance.state_dir)

    @property
    def shm_dir(self) -> Path:
        return Path(self.instance.shm_root) / f"l2dash-{self.instance.name}"

    @property
    def account_scope(self) -> str:
        """ "dedicated", "managed", or "" while paper or live have not answered."""
        return self.gateway.account_scope or ("dedicated" if self.instance.mode == "sim" else "")


def _line_of(text: str, path: list[str]) -> int:
    """Line of the last key of a dotted path in a TOML text, 0 if it stands nowhere."""
    section, key = path[:-1], path[-1]
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.\-]+)\s*\]+", line)
        if header:
            current = header.group(1).split(".")
            if current == path:
                return number
        elif re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line) and current == section:
            return number
    return 0


def _choices(path: list[str]) -> list[str]:
    """Values of the Literal at a dotted path of the schema."""
    kind: Any = Config
    for part in path:
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            kind = get_args(kind)[0]  # a tuple of sections
        kind = get_type_hints(kind)[part]
    return [str(value) or '""' for value in get_args(kind)]


def check(config: Config, source: str = "config") -> None:
    """Cross-field rules that no single field can see. Raises ConfigError naming both fields."""
    g, lim, st, gw = config.guardrails, config.limits, config.strategy, config.gateway
    rules = (
        (lim.order_notional_usd <= lim.gate_symbol_usd, "limits.order_notional_usd", lim.order_notional_usd,
         f"at most the gate's symbol cap {lim.gate_symbol_usd:.0f} (limits.max_position_usd × symbol_exposure_pct, less gate_margin_pct)"),
        (st.symbol_usd <= lim.gate_symbol_usd, "strategy.symbol_usd", st.symbol_usd, f"at most the gate's symbol cap {lim.gate_symbol_usd:.0f}"),
        (st.gross_usd <= lim.gate_gross_usd, "strategy.gross_usd", st.gross_usd, f"at most the gate's gross cap {lim.gate_gross_usd:.0f}"),
        (st.order_usd <= lim.order_notional_usd, "strategy.order_usd", st.order_usd, f"at most limits.order_notional_usd {lim.order_notional_usd:.0f}"),
        (st.daily_stop_usd <= g.drawdown_usd, "strategy.daily_stop_usd", st.daily_stop_usd, f"at most guardrails.drawdown_usd {g.drawdown_usd:.0f}"),
        (g.confidence_block_s <= g.confidence_kill_s, "guardrails.confidence_block_s", g.confidence_block_s, f"at most guardrails.confidence_kill_s {g.confidence_kill_s:g}"),
        (g.lease_renew_ms * 2 <= g.lease_expiry_ms, "guardrails.lease_renew_ms", g.lease_renew_ms, f"at most half of guardrails.lease_expiry_ms {g.lease_expiry_ms:g}"),
        (g.lease_expiry_ms <= g.watchdog_gone_s * 1e3, "guardrails.lease_expiry_ms", g.lease_expiry_ms, f"at most guardrails.watchdog_gone_s {g.watchdog_gone_s:g} s"),
        (g.link_down_kill_s <= g.reconnect_flatten_outage_s, "guardrails.link_down_kill_s", g.link_down_kill_s,
         f"at most guardrails.reconnect_flatten_outage_s {g.reconnect_flatten_outage_s:g}: else an outage that kills is never flattened"),
        (g.index_window_s <= INDEX_WINDOW_MAX_S, "guardrails.index_window_s", g.index_window_s, f"at most {INDEX_WINDOW_MAX_S:g}, what is kept of the index"),
        (g.rate_sustained_s >= 1.0, "guardrails.rate_sustained_s", g.rate_sustained_s, "at least 1: rates are taken over a second"),
        (g.warn_share > 0.0, "guardrails.warn_share", g.warn_share, "above 0: else every badge warns always"),
        (g.confidence > 0.0, "guardrails.confidence", g.confidence, "above 0: else CONF never trips"),
        (lim.orders_per_s <= g.intents_per_s, "limits.orders_per_s", lim.orders_per_s,
         f"at most guardrails.intents_per_s {g.intents_per_s:g}: else COOL kills what the gate lets pass"),
        (st.min_confidence >= g.confidence or not st.enabled, "strategy.min_confidence", st.min_confidence,
         f"at least guardrails.confidence {g.confidence:g}: else entries are taken where CONF counts a symbol as low"),
        (gw.reserved_per_s < gw.messages_per_s, "gateway.reserved_per_s", gw.reserved_per_s, f"less than gateway.messages_per_s {gw.messages_per_s}"),
        (gw.messages_per_s + gw.emergency_messages_per_s <= 50, "gateway.messages_per_s", gw.messages_per_s, "together with emergency_messages_per_s at most 50, the broker's limit"),
        ((gw.second_host, gw.second_port) != (gw.host, gw.port), "gateway.second_host", gw.second_host, "another gateway than gateway.host and gateway.port, or none"),
        (_address(gw.host), "gateway.host", gw.host, AN_ADDRESS),
        (not gw.second_host or _address(gw.second_host), "gateway.second_host", gw.second_host, f"{AN_ADDRESS}, or none"),
        (gw.client_id != gw.emergency_client_id, "gateway.emergency_client_id", gw.emergency_client_id, "another id than gateway.client_id"),
        (config.universe.index != "none" or config.instance.mode == "sim", "universe.index", "none", "INDU or DIA outside sim: the index alert needs one"),
        (config.model.warmup_min_s <= config.model.warmup_s, "model.warmup_min_s", config.model.warmup_min_s, f"at most model.warmup_s {config.model.warmup_s:g}"),
        (_loopback(config.cockpit.host) or bool(config.cockpit.tls_cert) or config.cockpit.trusted_proxy, "cockpit.host", config.cockpit.host,
         "a loopback address, or tls_cert and tls_key, or trusted_proxy = true"),
        (_loopback(config.cockpit.health_host) or config.cockpit.trusted_proxy, "cockpit.health_host", config.cockpit.health_host, "a loopback address, or trusted_proxy = true"),
    )  # fmt: skip
    for section, values in msgspec.to_builtins(config).items():
        for key, number in values.items():
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{source}: {section}.{key} = {number}: allowed is a finite number")
    for holds, field, value, allowed in rules:
        if not holds:
            raise ConfigError(f"{source}: {field} = {value}: allowed is {allowed}")


AN_ADDRESS = (
    "an IPv4 address or localhost: a name would be looked up while trading, and a look-up that hangs stops who asks"
)


def _address(host: str) -> bool:
    if host != "localhost":
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
    return True


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def parse(text: str, source: str = "config") -> Config:
    """Config from TOML text. Raises ConfigError with line, key, value and what is allowed."""
    try:
        data: dict[str, Any] = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    return from_mapping(data, source, text)


def from_mapping(data: dict[str, Any], source: str = "config", text: str = "") -> Config:
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        message = str(error)
        where = re.search(r"at `\$\.?([^`]*)`", message)
        unknown = re.search(r"unknown field `([^`]+)`", message)
        path = [p for p in (where.group(1) if where else "").replace("[...]", "").split(".") if p]
        if unknown:
            path.append(unknown.group(1))
        line = _line_of(text, path) if text and path else 0
        value: Any = data
        for part in path:
            value = value.get(part, "") if isinstance(value, dict) else ""
        plain = re.sub(r" - at `[^`]*`", "", message)
        if plain.startswith("Invalid enum value"):
            plain = f"allowed are {', '.join(_choices(path))}"
        place = f"{source}:{line}" if line else source
        shown = "" if unknown or isinstance(value, dict | list) else f" = {value!r}"
        raise ConfigError(f"{place}: {'.'.join(path) or 'file'}{shown}: {plain}") from error
    check(config, source)
    return config


def load(path: Path | None, overrides: dict[str, dict[str, Any]] | None = None) -> Config:
    """Read a TOML file (None: all defaults) and lay ``overrides`` (section -> key -> value) over it.

    Raises ConfigError.
    """
    text, source = "", "defaults"
    if path is not None:
        source = str(path)
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(f"{source}: can't be read: {error.strerror}; name another file with --config") from error
    try:
        data: dict[str, Any] = msgspec.toml.decode(text) if text else {}
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    for section, values in (overrides or {}).items():
        if values:
            data[section] = {**data.get(section, {}), **values}
    return from_mapping(data, source, text)


def dump(config: Config) -> str:
    """The whole configuration as TOML: what `l2dash config check` shows and what a running instance keeps."""
    return msgspec.toml.encode(msgspec.to_builtins(config)).decode()
