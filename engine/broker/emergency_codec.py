"""The dozen TWS messages that getting flat needs, as a sans-IO codec: bytes in, messages out, and the way back.

Own and small on purpose: when the trading connection's library, process or event loop is what has failed, none of it
may be needed here. Speaks the text protocol of server versions 157 to 176. Unknown messages are skipped; a frame that
can't be understood raises CodecError, after which the connection must be closed.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

MIN_VERSION, MAX_VERSION = 157, 176
MAX_FRAME = 1 << 22

V_DURATION, V_POST_TO_ATS, V_AUTO_CANCEL_PARENT = 158, 160, 162
V_ADVANCED_REJECT, V_MANUAL_TIME = 166, 169


class CodecError(Exception):
    """The peer sent something that is not this protocol; the text says what."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Identity of a contract as the broker names it."""

    con_id: int
    symbol: str
    sec_type: str
    currency: str
    exchange: str = ""


@dataclass(frozen=True, slots=True)
class Handshake:
    server_version: int


@dataclass(frozen=True, slots=True)
class Accounts:
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NextId:
    order_id: int


@dataclass(frozen=True, slots=True)
class OpenOrder:
    order_id: int
    contract: Contract
    action: str
    qty: float
    account: str
    order_ref: str
    client_id: int
    perm_id: int


@dataclass(frozen=True, slots=True)
class OpenOrdersEnd:
    pass


@dataclass(frozen=True, slots=True)
class OrderStatus:
    order_id: int
    status: str
    filled: float
    remaining: float
    perm_id: int
    client_id: int


@dataclass(frozen=True, slots=True)
class Execution:
    """``cum_qty`` and ``avg_price`` are of the whole order."""

    order_id: int
    exec_id: str
    qty: float
    price: float
    client_id: int
    cum_qty: float
    avg_price: float


@dataclass(frozen=True, slots=True)
class Position:
    account: str
    contract: Contract
    qty: float


@dataclass(frozen=True, slots=True)
class PositionsEnd:
    pass


@dataclass(frozen=True, slots=True)
class CurrentTime:
    epoch_s: int


@dataclass(frozen=True, slots=True)
class TickPrice:
    """``tick_type`` 1 bid, 2 ask; ``price`` -1 where there is none."""

    request_id: int
    tick_type: int
    price: float


@dataclass(frozen=True, slots=True)
class BrokerError:
    """``request_id`` -1: about the system."""

    request_id: int
    code: int
    text: str


Message = (
    Handshake
    | Accounts
    | NextId
    | OpenOrder
    | OpenOrdersEnd
    | OrderStatus
    | Execution
    | Position
    | PositionsEnd
    | CurrentTime
    | TickPrice
    | BrokerError
)


def _number(text: str) -> float:
    value = float(text) if text else 0.0
    return value if math.isfinite(value) and abs(value) < 1e300 else 0.0


def _integer(text: str) -> int:
    return int(float(text)) if text else 0


def _contract(f: list[str], at: int) -> Contract:
    """contract11: conId, symbol, secType, expiry, strike, right, multiplier, exchange, currency, local, class."""
    return Contract(_integer(f[at]), f[at + 1], f[at + 2], f[at + 8], f[at + 7])


class EmergencyCodec:
    """One connection's protocol state. Feed received bytes to ``receive``; send what the other methods return."""

    def __init__(self, client_id: int) -> None:
        self.client_id = client_id
        self.server_version = 0
        self._buffer = bytearray()

    def hello(self) -> bytes:
        """The first bytes on a new connection."""
        body = f"v{MIN_VERSION}..{MAX_VERSION}".encode()
        return b"API\0" + struct.pack(">I", len(body)) + body

    def frame(self, *fields: object) -> bytes:
        """One message from its fields."""
        body = "".join(f"{_text(f)}\0" for f in fields).encode("ascii", "backslashreplace")
        return struct.pack(">I", len(body)) + body

    def start_api(self) -> bytes:
        return self.frame(71, 2, self.client_id, "")

    def request_current_time(self) -> bytes:
        return self.frame(49, 1)

    def request_all_open_orders(self) -> bytes:
        return self.frame(16, 1)

    def request_open_orders(self) -> bytes:
        """Only this client id's own; client 0 also binds manual ones."""
        return self.frame(5, 1)

    def request_positions(self) -> bytes:
        return self.frame(61, 1)

    def request_quotes(self, request_id: int, contract: Contract) -> bytes:
        """Bid and ask of a contract, streamed as TickPrice."""
        return self.frame(
            1, 11, request_id, contract.con_id, contract.symbol, contract.sec_type, "", 0.0, "", "",
            "SMART", "", contract.currency, "", "", 0, "", 0, 0, "",
        )  # fmt: skip

    def global_cancel(self) -> bytes:
        return self.frame(58, 1)

    def cancel_order(self, order_id: int) -> bytes:
        manual = ("",) if self.server_version >= V_MANUAL_TIME else ()
        return self.frame(4, 1, order_id, *manual)

    def place_order(
        self, order_id: int, contract: Contract, action: str, qty: float, account: str, order_ref: str,
        limit: float = math.nan, outside_hours: bool = False,
    ) -> bytes:  # fmt: skip
        """A DAY order, MKT or (with ``limit``) LMT, routed SMART. ``action`` BUY or SELL, ``qty`` > 0."""
        if not (qty > 0 and math.isfinite(qty)):
            raise ValueError(f"quantity {qty}: allowed is a positive number")
        market = math.isnan(limit)
        v = self.server_version
        fields: list[object] = [
            3, order_id,
            contract.con_id, contract.symbol, contract.sec_type, "", 0.0, "", "",
            "SMART", "", contract.currency, "", "",
            "", "",  # secIdType, secId
            action, qty, "MKT" if market else "LMT", "" if market else limit, "", "DAY", "", account, "", 0, order_ref,
            1, 0, 0, 0, 0, 0, int(outside_hours), 0,  # transmit .. hidden
            "", 0.0, "", "", "", "", "", "", "",  # 35 shares allocation .. 43 model code
            0, "", -1, 0, "", "", 0, "", "", 0, 0, "", 0, "", "", "", "", "",  # 44 short-sale slot .. 61 stock range
            0, "", "", "", "", 0, "", "", "", "", "", "",  # 62 override .. 73 scale price increment
            "", "", "", "", 0, "", "", 0, 0, "", "", 0, "", 0, 0, 0,  # 74 scale table .. 89 randomize
            0, "", "", "", "", "", "", 0, "", "", "", "",  # 90 conditions .. 101 cash quantity
            "", "", "", "", 0, 0, 0, 0,  # 102 MiFID .. 109 price management
        ]  # fmt: skip
        if v >= V_DURATION:
            fields.append("")
        if v >= V_POST_TO_ATS:
            fields.append("")
        if v >= V_AUTO_CANCEL_PARENT:
            fields.append(0)
        if v >= V_ADVANCED_REJECT:
            fields.append("")
        if v >= V_MANUAL_TIME:
            fields.append("")
        return self.frame(*fields)

    def receive(self, data: bytes) -> list[Message]:
        """Messages completed by ``data``. Raises CodecError."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        at = 0
        while len(buffer) - at >= 4:
            (size,) = struct.unpack_from(">I", buffer, at)
            if not 0 < size <= MAX_FRAME:
                raise CodecError(f"frame of {size} bytes: allowed are 1 to {MAX_FRAME}")
            if len(buffer) - at - 4 < size:
                break
            body = bytes(buffer[at + 4 : at + 4 + size])
            at += 4 + size
            fields = body.decode("ascii", "replace").split("\0")[:-1]
            message = self._message(fields)
            if message is not None:
                messages.append(message)
        del buffer[:at]
        return messages

    def _message(self, f: list[str]) -> Message | None:
        try:
            if not self.server_version:
                self.server_version = int(f[0])
                if not MIN_VERSION <= self.server_version <= MAX_VERSION:
                    raise CodecError(f"server version {f[0]}: this codec speaks {MIN_VERSION} to {MAX_VERSION}")
                return Handshake(self.server_version)
            return self._known(f)
        except (ValueError, IndexError, OverflowError) as error:
            raise CodecError(f"message {f[:3]} with {len(f)} fields: {error}") from error

    def _known(self, f: list[str]) -> Message | None:
        kind = f[0]
        if kind == "3":
            return OrderStatus(_integer(f[1]), f[2], _number(f[3]), _number(f[4]), _integer(f[6]), _integer(f[9]))
        if kind == "5":
            contract = _contract(f, 2)
            return OpenOrder(
                _integer(f[1]), contract, f[13], _number(f[14]), f[20], f[23], _integer(f[24]), _integer(f[25])
            )
        if kind == "61":
            return Position(f[2], _contract(f, 3), _number(f[14]))
        if kind == "4":
            return BrokerError(_integer(f[2]), _integer(f[3]), f[4])
        if kind == "11":
            return Execution(
                _integer(f[2]), f[14], _number(f[19]), _number(f[20]), _integer(f[22]), _number(f[24]), _number(f[25])
            )
        if kind == "1":
            return TickPrice(_integer(f[2]), _integer(f[3]), _number(f[4]))
        if kind == "53":
            return OpenOrdersEnd()
        if kind == "62":
            return PositionsEnd()
        if kind == "49":
            return CurrentTime(_integer(f[2]))
        if kind == "9":
            return NextId(_integer(f[2]))
        if kind == "15":
            return Accounts(tuple(a for a in f[2].split(",") if a))
        return None


def _text(field: object) -> str:
    if isinstance(field, float):
        return f"{field:.10g}" if field != int(field) else str(int(field))
    return str(field)
