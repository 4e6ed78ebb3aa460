"""A gateway on an ephemeral port in the test's own loop, a raw protocol client, and an ib_insync client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ib_insync import IB
from paper_scripted import ScriptedMarket

from engine.domain.instruments import SIM_INDEX
from engine.paper.config import PaperConfig
from engine.paper.faults import FaultDesk
from engine.paper.fields import payload
from engine.paper.framing import frame
from engine.paper.server import Gateway, bind

PATIENCE_S = 10.0
AAPL = ("265598", "AAPL", "STK", "", "0.0", "", "", "SMART", "", "USD", "", "")
MSFT = ("272093", "MSFT", "STK", "", "0.0", "", "", "SMART", "", "USD", "", "")


@dataclass
class Running:
    gateway: Gateway
    market: ScriptedMarket
    faults: FaultDesk
    port: int

    def step(self) -> None:
        """Let the gateway take what the script has queued, now."""
        self.gateway.step()


def start_gateway(market: ScriptedMarket | None = None, **settings: Any) -> Gateway:
    base: dict[str, Any] = {"port": 0, "max_client_messages_per_s": 0, "time_interval_ms": 0.0}
    return Gateway(PaperConfig(**(base | settings)), market or ScriptedMarket(), SIM_INDEX)


@asynccontextmanager
async def running(market: ScriptedMarket | None = None, **settings: Any) -> AsyncIterator[Running]:
    market = market or ScriptedMarket()
    listener = bind("127.0.0.1", settings.get("port", 0))
    gateway = start_gateway(market, **settings)
    server = await gateway.listen(listener)
    stop = asyncio.Event()
    task = asyncio.create_task(gateway.run(stop))
    faults = FaultDesk(gateway)
    try:
        yield Running(gateway, market, faults, server.sockets[0].getsockname()[1])
    finally:
        stop.set()
        await task
        faults.close()
        server.close()
        gateway.close()


async def until(condition: Callable[[], Any], what: str = "condition") -> Any:
    """Wait until a condition holds; fails with its name."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while True:
        result = condition()
        if result:
            return result
        if loop.time() > end:
            raise AssertionError(f"{what} never held")
        await asyncio.sleep(0.002)


@asynccontextmanager
async def ib_client(port: int, client_id: int = 1) -> AsyncIterator[IB]:
    ib = IB()
    await ib.connectAsync("127.0.0.1", port, clientId=client_id, timeout=PATIENCE_S)
    try:
        yield ib
    finally:
        ib.disconnect()


class RawClient:
    """Speaks the protocol field by field."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.closed = False
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    async def connect(cls, port: int, client_id: int | None = 5, versions: str = "v157..176") -> RawClient:
        """Connect and shake hands; with ``client_id`` None without startApi."""
        client = cls()
        reader, client._writer = await asyncio.open_connection("127.0.0.1", port)
        client._task = asyncio.create_task(client._read(reader))
        client.write(b"API\0" + frame(versions.encode()))
        if client_id is not None:
            await until(lambda: client.messages or client.closed, "greeting")
            client.send(71, 2, client_id, "")
            await until(lambda: client.of(9) or client.of(4) or client.closed, "nextValidId")
        return client

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                body = await reader.readexactly(length)
                self.messages.append(body.decode().split("\0")[:-1])
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True

    def write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def send(self, *fields: object) -> None:
        self.write(frame(payload(*fields)))

    def of(self, message_id: int) -> list[list[str]]:
        """Messages received so far with an id."""
        return [m for m in self.messages if m[0] == str(message_id)]

    def errors(self, req_id: int | None = None) -> list[int]:
        """Error codes received so far, of one request or of all."""
        return [int(m[3]) for m in self.of(4) if req_id is None or m[2] == str(req_id)]

    async def expect(self, message_id: int, count: int = 1) -> list[list[str]]:
        """Wait for messages with an id."""
        return list(await until(lambda: len(self.of(message_id)) >= count and self.of(message_id), f"{message_id}"))

    async def expect_error(self, code: int, req_id: int | None = None) -> None:
        await until(lambda: code in self.errors(req_id), f"error {code}")

    async def sync(self) -> None:
        """Wait until everything sent before has been answered."""
        before = len(self.of(49))
        self.send(49, 1)
        await until(lambda: len(self.of(49)) > before or self.closed, "current time")

    async def close(self) -> None:
        assert self._writer is not None
        self._writer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def place_fields(
    order_id: int,
    action: str = "BUY",
    quantity: object = 100,
    order_type: str = "LMT",
    limit: object = 140.0,
    tif: str = "DAY",
    *,
    contract: tuple[str, ...] = AAPL,
    what_if: bool = False,
    transmit: bool = True,
    version: int = 176,
    order_ref: str = "",
    aux: object = "",
    trail_stop: object = "",
    trail_percent: object = "",
    oca_group: str = "",
    oca_type: int = 0,
    parent: int = 0,
    outside_rth: bool = False,
) -> list[object]:
    """placeOrder of a plain stock order in the layout of ``version`` (157 or 176)."""
    fields: list[object] = [
        3,
        order_id,
        *contract,
        "",
        "",
        action,
        quantity,
        order_type,
        limit,
        aux,
        tif,
        oca_group,
        "",
    ]
    fields += ["", 0, order_ref, transmit, parent, 0, 0, 0, 0, outside_rth, 0]  # openClose .. hidden
    fields += [
        "",
        0,
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        0,
        "",
        -1,
        oca_type,
        "",
        "",
        0,
        "",
        "",
        0,
        0,
        "",
        0,
        "",
        "",
        "",
        "",
        "",
        0,
    ]
    fields += ["", "", "", "", 0, "", trail_stop, trail_percent, "", "", "", "", "", "", "", 0, "", "", 0, 0, "", ""]
    fields += [what_if, "", 0, 0, 0]
    fields += [0, "", "", "", "", "", "", 0, "", "", "", "", "", "", "", "", 0, 0, 0, 0]
    if version >= 176:
        fields += ["", "", 0, "", ""]
    return fields
