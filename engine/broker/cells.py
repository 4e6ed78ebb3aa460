"""The bridge's own cells: account, positions, broker, stop. Filled from its state, published when something changed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.broker.register import Register
from engine.domain.codes import BlockReason, LinkState, Mode, OrderState
from engine.domain.instruments import Instrument
from engine.risk.accounting import Accounts
from engine.risk.reconcile import Differences
from engine.runtime.context import Context


def mode_of(account: str) -> Mode:
    """Mode that an account id belongs to: DUSIM… the embedded gateway, other DU… paper, everything else live."""
    if account.startswith("DUSIM"):
        return Mode.SIM
    return Mode.PAPER if account.startswith("DU") else Mode.LIVE


class Cells:
    """Ever-rising counters (trades, intents, order_events, ...) continue from the predecessor's values."""

    def __init__(self, context: Context, register: Register, accounts: Accounts) -> None:
        self._register = register
        self._accounts = accounts
        self._instruments: tuple[Instrument, ...] = context.instruments
        self._account_cell = context.cell_writer("account")
        self._position_cell = context.cell_writer("positions")
        self._broker_cell = context.cell_writer("broker")
        self._stop_cell = context.cell_writer("stop.bridge")
        self.account = self._account_cell.value[0]
        self.positions = self._position_cell.value
        self.broker = self._broker_cell.value[0]
        self.stop = self._stop_cell.value[0]
        self.differences = Differences(len(context.instruments))
        self._stop_flags: tuple[int, int, int] = (-1, -1, -1)
        a, b = self.account, self.broker
        a["ready"] = a["matches"] = 0
        a["net_liquidation_usd"] = a["cash_usd"] = a["buying_power_usd"] = math.nan
        for name in (
            "reconciled",
            "leaving",
            "probe_sent_ns",
            "down_since_ns",
            "farms_down",
            "clock_offset_ns",
            "last_close_sent_ns",
        ):
            b[name] = 0
        b["link"] = int(LinkState.DOWN)

    def publish_account(self, now_ns: int) -> None:
        a = self.account
        holdings = self._accounts.holdings
        a["updated_ns"] = now_ns
        a["realized_pnl_usd"] = sum(h.realized_pnl_usd for h in holdings)
        a["commissions_usd"] = sum(h.commissions_usd for h in holdings)
        a["executions"] = sum(h.executions for h in holdings)
        self._account_cell.publish()

    def publish_position(self, symbol: int, now_ns: int) -> None:
        held = self._accounts.holdings[symbol]
        buy = sell = unknown_buy = unknown_sell = 0.0
        count = 0
        for order in self._register.active():
            if order.symbol != symbol:
                continue
            count += 1
            unknown = order.state == OrderState.UNKNOWN
            if order.side > 0:
                buy, unknown_buy = (
                    (buy, unknown_buy + order.remaining) if unknown else (buy + order.remaining, unknown_buy)
                )
            else:
                sell, unknown_sell = (
                    (sell, unknown_sell + order.remaining) if unknown else (sell + order.remaining, unknown_sell)
                )
        p = self.positions[symbol]
        for name, value in (
            ("qty", held.qty),
            ("avg_cost", held.avg_cost),
            ("realized_pnl_usd", held.realized_pnl_usd),
            ("working_buy_qty", buy),
            ("working_sell_qty", sell),
            ("unknown_buy_qty", unknown_buy),
            ("unknown_sell_qty", unknown_sell),
            ("commissions_usd", held.commissions_usd),
            ("updated_ns", now_ns),
            ("executions", held.executions),
            ("working_orders", count),
            ("cash_flow_usd", held.cash_flow_usd),
            ("day_open_qty", held.day_open_qty),
        ):
            p[name] = value
        self._position_cell.publish(symbol)

    def publish_positions(self, symbols: Iterable[int], now_ns: int) -> None:
        for symbol in symbols:
            self.publish_position(symbol, now_ns)

    def broker_position(self, symbol: int, qty: float, now_ns: int) -> None:
        """The broker's own word; notes since when it differs from ours."""
        p = self.positions[symbol]
        p["broker_qty"], p["broker_ns"] = qty, now_ns
        self.compare(symbol, now_ns)

    def compare(self, symbol: int, now_ns: int) -> bool:
        """True if ours and the broker's agree."""
        p = self.positions[symbol]
        since_ns = self.differences.note(symbol, self._accounts.holdings[symbol].qty, float(p["broker_qty"]), now_ns)
        p["mismatch_since_ns"] = since_ns
        return not since_ns

    def publish_broker(self, now_ns: int) -> None:
        b = self.broker
        b["updated_ns"] = now_ns
        working = unknown = 0
        for order in self._register.active():
            if order.state == OrderState.UNKNOWN:
                unknown += 1
            else:
                working += 1
        b["working_orders"], b["unknown_orders"] = working, unknown
        self._broker_cell.publish()

    def round_trip(self, rtt_ns: int) -> None:
        b = self.broker
        count = int(b["rtt_count"])
        b["rtt_ns"][count % len(b["rtt_ns"])] = rtt_ns
        b["rtt_count"] = count + 1

    def order_event(self) -> None:
        self.broker["order_events"] += 1

    def block(self, reasons: int, now_ns: int, symbols: int = 0) -> bool:
        """Publish the derived block, of all symbols for ``reasons``, of some for stale data; True if it changed."""
        s = self.stop
        flags = (reasons, symbols, int(s["kill"]))
        if flags == self._stop_flags:
            return False
        self._stop_flags = flags
        if bool(s["block"]) != bool(reasons) and not s["kill"]:
            s["since_ns"] = now_ns
        s["block"], s["block_reasons"] = bool(reasons), reasons | bool(symbols) << BlockReason.STALE_DATA
        s["symbol_block"] = symbols
        self._stop_cell.publish()
        return True

    def kill(self, reason_mask: int, now_ns: int) -> None:
        """Latch the bridge's own KILL: the dead-man. Only an operator's reset releases it."""
        s = self.stop
        s["kill"], s["kill_reason"], s["since_ns"], s["stop_id"] = 1, reason_mask, now_ns, now_ns
        self._stop_cell.publish()

    @property
    def killed(self) -> bool:
        return bool(self.stop["kill"])


def reason_words(mask: int) -> str:
    """Names of block reasons."""
    return ", ".join(r.name for r in BlockReason if mask >> int(r) & 1) or "none"


def position_array(accounts: Accounts) -> tuple[float, ...]:
    return tuple(h.qty for h in accounts.holdings)
