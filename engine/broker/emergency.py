"""Getting flat with nothing but a socket to the gateway: what `l2dash flatten --direct` does.

The watchdog uses the same parts: ``EmergencyConnection`` all the time, as probe of the gateway, and ``DirectFlatten``
as the hand that acts when the bridge is dead.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.broker.emergency_codec import BrokerError
from engine.broker.emergency_flatten import DirectFlatten
from engine.broker.emergency_link import CLIENT_ID_IN_USE, EmergencyConnection
from engine.config import Config
from engine.domain.codes import FlattenState
from engine.domain.sessions import is_regular_hours
from engine.runtime import universe

__all__ = ["DirectFlatten", "EmergencyConnection", "Result", "flatten_direct"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a direct flatten. ``remaining``: positions and orders still open, in words."""

    flat: bool
    remaining: tuple[str, ...]
    closes_sent: int
    elapsed_s: float
    text: str


def flatten_direct(config: Config, log: Callable[[str], None], timeout_s: float = 60.0) -> Result:
    """Get flat with nothing but a socket to the gateway; no other process of the system is needed or asked.

    Everything in the account if its scope is "dedicated"; else only the configured symbols, and orders that the
    trading client id owns (so that client id is used, which needs the bridge to be gone).
    """
    gateway = config.gateway
    dedicated = config.account_scope != "managed"
    began = time.monotonic_ns()
    client_id = gateway.emergency_client_id + 1 if dedicated else gateway.client_id
    connection = EmergencyConnection(
        gateway.host, gateway.port, client_id, messages_per_s=gateway.messages_per_s,
        reconnect_min_s=gateway.reconnect_min_s, reconnect_max_s=1.0, others=gateway.others,
    )  # fmt: skip
    flatten: DirectFlatten | None = None
    shown = ""
    try:
        while time.monotonic_ns() - began < timeout_s * 1e9:
            now_ns = time.monotonic_ns()
            messages = connection.poll(now_ns)
            for message in messages:
                if isinstance(message, BrokerError) and message.code == CLIENT_ID_IN_USE:
                    if dedicated and connection.client_id < gateway.emergency_client_id + 10:
                        connection.client_id += 1
                    else:
                        log(f"client id {connection.client_id} is in use: end broker-bridge first (`l2dash kill`)")
            if flatten is None and connection.ready:
                if gateway.account not in connection.accounts:
                    text = f"account {gateway.account} is not at this gateway: it has {', '.join(connection.accounts)}"
                    return Result(False, (), 0, (now_ns - began) / 1e9, text)
                log(
                    f"connected to {connection.address[0]}:{connection.address[1]} as client {connection.client_id},"
                    f" account {gateway.account}"
                )
                only = None if dedicated else _configured(config)
                flatten = DirectFlatten(
                    connection, gateway.account, only=only, reason="flatten --direct", now_ns=now_ns,
                    wall_s=int(time.time()), settle=True,
                    regular_hours=lambda: is_regular_hours(time.time_ns(), config.instance.mode == "sim"),
                )  # fmt: skip
            if flatten is not None:
                flatten.step(messages, now_ns)
                state = (
                    f"{FlattenState(flatten.state.state).name.lower()}: {', '.join(flatten.held()) or 'nothing open'}"
                )
                if state != shown:
                    shown = state
                    log(state)
                for alert in flatten.alerts:
                    log(alert)
                flatten.alerts.clear()
                if flatten.done:
                    elapsed_s = (time.monotonic_ns() - began) / 1e9
                    return Result(
                        True, (), flatten.closed, elapsed_s, f"flat, confirmed by the broker in {elapsed_s:.1f} s"
                    )
            _wait(connection, 0.02)
        elapsed_s = (time.monotonic_ns() - began) / 1e9
        if flatten is None:
            text = (
                f"no login at {gateway.host}:{gateway.port} within {timeout_s:g} s: {connection.last_error};"
                " use the broker's own app or phone desk"
            )
            return Result(False, ("unknown: the broker could not be asked",), 0, elapsed_s, text)
        remaining = tuple(flatten.held()) or ("not confirmed",)
        return Result(
            False, remaining, flatten.closed, elapsed_s, f"NOT flat after {elapsed_s:.0f} s: {', '.join(remaining)}"
        )
    finally:
        connection.close()


def _configured(config: Config) -> frozenset[str]:
    index = universe.index_symbol(config)
    return frozenset(i.symbol for i in universe.instruments(config) if i.index != index)


def _wait(connection: EmergencyConnection, timeout_s: float) -> None:
    if connection.fileno() < 0:
        time.sleep(timeout_s)
        return
    poller = select.poll()  # not select(), which knows no descriptor above 1023
    poller.register(connection.fileno(), select.POLLIN)
    poller.poll(timeout_s * 1e3)
