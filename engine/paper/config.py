"""Settings of the paper gateway."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Settings of one gateway. Raises ValueError on construction for a value that can't work.

    ``port`` 0 takes a free one. ``market`` is ``synthetic`` or the path of a recording; ``start`` is where in a
    recording the replay begins (time of day, HH:MM or HH:MM:SS, empty for 09:30). ``messages_per_s`` are depth
    messages of all symbols together. ``max_depth_lines`` limits depth and tick-by-tick subscriptions of all clients
    together, as the broker does per account. ``latency_ms`` delays the handling of order messages, and an
    exponential time of mean ``latency_jitter_ms`` on top of it; orders of one client keep their order. ``state_file``
    None keeps nothing; ``faults_file`` is a timed scenario; ``control_port`` 0 switches the fault port off.
    ``max_client_messages_per_s`` 0 switches error 100 off; ``time_interval_ms`` is how soon a repeated
    reqCurrentTime is answered again. ``master_client_id`` sees every order, -1: nobody. ``commissions`` is ``fixed`` or
    ``tiered``. ``hours`` is ``24/7`` or ``regular`` (weekdays 09:30 to 16:00 New York; other orders wait for the open).
    ``symbols`` of the synthetic market, each ``NAME`` or ``NAME:PRICE``;
    empty: the eight stocks of ``sim``. ``levels`` are the rows of the synthetic books; a recording has its own.
    """

    host: str = "127.0.0.1"
    port: int = 4002
    account: str = "DUSIM001"
    equity_usd: float = 1_000_000.0
    seed: int = 1
    market: str = "synthetic"
    start: str = ""
    messages_per_s: float = 1_000.0
    max_depth_lines: int = 16
    latency_ms: float = 0.0
    state_file: Path | None = None
    faults_file: Path | None = None
    control_port: int = 0
    levels: int = 10
    max_client_messages_per_s: int = 50
    time_interval_ms: float = 1_000.0
    master_client_id: int = -1
    commissions: str = "fixed"
    hours: str = "24/7"
    latency_jitter_ms: float = 0.0
    symbols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("control_port", 0, 65_535),
            ("equity_usd", 1.0, 1e12),
            ("messages_per_s", 0.0, 1e6),
            ("max_depth_lines", 1, 1_000),
            ("latency_ms", 0.0, 60_000.0),
            ("latency_jitter_ms", 0.0, 60_000.0),
            ("master_client_id", -1, 2**31 - 1),
            ("levels", 1, 20),
            ("max_client_messages_per_s", 0, 1_000_000),
            ("time_interval_ms", 0.0, 60_000.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed is {low:g}..{high:g}")
        for name, allowed in (("commissions", ("fixed", "tiered")), ("hours", ("24/7", "regular"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, allowed are {' and '.join(allowed)}")
        if not self.account.startswith("DU"):
            raise ValueError(f"account is {self.account!r}; a paper account begins with DU")
