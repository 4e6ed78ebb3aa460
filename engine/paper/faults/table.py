"""All faults by name."""

from __future__ import annotations

from engine.paper.faults.args import Values
from engine.paper.faults.desk import Fault, FaultDesk
from engine.paper.faults.links import LINK_FAULTS, data_kept, farm_back
from engine.paper.faults.market import MARKET_FAULTS
from engine.paper.faults.orders import ORDER_FAULTS


def clear(desk: FaultDesk, values: Values) -> str:
    gateway = desk.gateway
    gateway.refuse_until_ns = 0
    gateway.mute = False
    gateway.reply_delay_s = gateway.reply_jitter_s = 0.0
    gateway.id_rollback = 0
    gateway.taken_ids.clear()
    gateway.history_up = True
    gateway.end_half_open()
    gateway.desk.faults.reset()
    desk.close()
    for symbol in list(gateway.feed.stalled):
        gateway.feed.unstall(symbol)
    if not gateway.link_up:
        data_kept(desk)
    elif gateway.feed.silent:
        farm_back(desk)
    return "all lasting faults are over, none is planned"


FAULTS: dict[str, Fault] = {
    **LINK_FAULTS,
    **ORDER_FAULTS,
    **MARKET_FAULTS,
    "clear": Fault("ends every lasting fault and drops what is planned", clear),
}
