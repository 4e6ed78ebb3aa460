"""Faults of connections, and of the connectivity behind the gateway."""

from __future__ import annotations

from engine.paper.faults.args import Values, flag, number, text
from engine.paper.faults.desk import Fault, FaultDesk

CLIENT = number("client id of one connection; -1: all", -1, -1)
DEAD = flag("no data flows afterwards, although it is said to")
FARMS = "All data farms are connected: usfarm; ushmds; secdefil."

# Connections.


def disconnect(desk: FaultDesk, values: Values) -> str:
    chosen = desk.sessions(values)
    for session in chosen:
        session.drop("fault: disconnect", abort=True)
    return f"{len(chosen)} connections dropped"


def refuse(desk: FaultDesk, values: Values) -> str:
    seconds = values.number("seconds")
    desk.gateway.refuse_until_ns = desk.gateway.now_ns() + int(seconds * 1e9)
    return f"new connections are refused for {seconds:g} s"


def daily_restart(desk: FaultDesk, values: Values) -> str:
    refuse(desk, values)
    for session in list(desk.gateway.sessions):
        session.drop("fault: daily restart", abort=True)
    return f"every connection dropped, back in {values.number('seconds'):g} s"


def half_open(desk: FaultDesk, values: Values) -> str:
    seconds, chosen = values.number("seconds"), desk.sessions(values)
    for session in chosen:
        session.half_open()

    def end() -> None:
        for session in chosen:
            session.abort_half_open()

    desk.later(seconds, end)
    return f"{len(chosen)} sockets stay open with nobody behind them"


def id_in_use(desk: FaultDesk, values: Values) -> str:
    seconds, chosen = values.number("seconds"), desk.sessions(values)
    until_ns = desk.gateway.now_ns() + int(seconds * 1e9)
    for session in chosen:
        if session.client_id >= 0:
            desk.gateway.taken_ids[session.client_id] = until_ns
        session.drop("fault: id_in_use", abort=True)
    return f"{len(chosen)} connections dropped, their ids stay in use for {seconds:g} s"


def mute(desk: FaultDesk, values: Values) -> str:
    seconds, chosen = values.number("seconds"), desk.sessions(values)
    for session in chosen:
        session.muted = True
    desk.gateway.mute = True

    def undo() -> None:
        desk.gateway.mute = False

    desk.later(seconds, undo)
    return f"{len(chosen)} connections are mute for good, new ones for {seconds:g} s (0: until unmute)"


def unmute(desk: FaultDesk, values: Values) -> str:
    # Muted connections have lost bytes of their stream; only a new connection can be answered again.
    desk.gateway.mute = False
    return "new connections are answered"


def delay(desk: FaultDesk, values: Values) -> str:
    milliseconds, jitter, seconds = values.number("ms"), values.number("jitter_ms"), values.number("seconds")
    desk.gateway.reply_delay_s, desk.gateway.reply_jitter_s = milliseconds / 1e3, jitter / 1e3
    desk.gateway.reply_rng = desk.chances

    def undo() -> None:
        desk.gateway.reply_delay_s = desk.gateway.reply_jitter_s = 0.0

    desk.later(seconds, undo)
    return f"all replies are late by {milliseconds:g} ms" + (f" and up to {jitter:g} ms more" if jitter else "")


def pacing(desk: FaultDesk, values: Values) -> str:
    chosen = desk.sessions(values)
    for session in chosen:
        session.system(100, "Max rate of messages per second has been exceeded: max=50 rec=51 (3)")
        session.drop("fault: pacing")
    return f"{len(chosen)} connections closed for their message rate"


def id_rollback(desk: FaultDesk, values: Values) -> str:
    desk.gateway.id_rollback = values.count("by")
    return f"nextValidId is {desk.gateway.id_rollback} lower than it should be"


def send_error(desk: FaultDesk, values: Values) -> str:
    code, chosen = values.count("code"), desk.sessions(values)
    for session in chosen:
        session.error(values.count("req_id"), code, values.text("message"))
    return f"error {code} sent to {len(chosen)} connections"


def port_changed(desk: FaultDesk, values: Values) -> str:
    chosen = list(desk.gateway.sessions)
    for session in chosen:
        port = values.count("port")
        session.system(1300, f"TWS socket port has been reset and this connection is being dropped. Use port {port}.")
        session.drop("fault: 1300")
    return f"{len(chosen)} connections closed with 1300"


# Connectivity behind the gateway.


def tell(desk: FaultDesk, code: int, message: str) -> None:
    for session in desk.gateway.clients():
        session.system(code, message)


_LOST = (1100, "Connectivity between IBKR and the paper gateway has been lost.")
_BROKEN = (2110, "Connectivity between TWS and server is broken. It will be restored automatically.")


def _lose(desk: FaultDesk, notice: tuple[int, str]) -> str:
    desk.gateway.link_up, desk.gateway.link_notice = False, notice
    desk.gateway.feed.hush()
    tell(desk, *notice)
    return "link to the broker is down: no data, orders wait"


def lost(desk: FaultDesk, values: Values) -> str:
    return _lose(desk, _LOST)


def broken(desk: FaultDesk, values: Values) -> str:
    return _lose(desk, _BROKEN)


def _data_lost(desk: FaultDesk) -> str:
    desk.gateway.link_up = True
    desk.gateway.feed.forget_all()
    desk.gateway.feed.silent = False
    tell(desk, 1101, "Connectivity between IBKR and the paper gateway has been restored - data lost.")
    desk.gateway.release_held()
    return "link is up, subscriptions are gone"


def restored_data_lost(desk: FaultDesk, values: Values) -> str:
    return _data_lost(desk)


def data_kept(desk: FaultDesk, dead: bool = False) -> str:
    """1102, with data that flows again or not."""
    desk.gateway.link_up = True
    tell(desk, 1102, f"Connectivity between IBKR and the paper gateway has been restored - data maintained. {FARMS}")
    if not dead:
        desk.gateway.feed.speak()
    desk.gateway.release_held()
    return "link is up, " + ("but no data flows" if dead else "data flows")


def restored_data_kept(desk: FaultDesk, values: Values) -> str:
    return data_kept(desk, values.flag("dead"))


def link_flap(desk: FaultDesk, values: Values) -> str:
    seconds, after = values.number("seconds"), values.text("then")
    endings = {
        "1101": lambda: _data_lost(desk),
        "1102": lambda: data_kept(desk),
        "1102-dead": lambda: data_kept(desk, dead=True),
    }
    if after not in endings:
        raise ValueError(f"argument 'then' is {after!r}, allowed are {', '.join(endings)}")
    desk.later(seconds, lambda: (endings[after](), None)[1])
    return f"{lost(desk, values)}; {after} in {seconds:g} s"


def farm_lost(desk: FaultDesk, values: Values) -> str:
    desk.gateway.feed.hush()
    tell(desk, 2103, "Market data farm connection is broken:usfarm")
    return "market data farm is down"


def farm_back(desk: FaultDesk, dead: bool = False) -> str:
    """2104, with data that flows again or not. It also ends what 2110 has begun."""
    gateway = desk.gateway
    back = not gateway.link_up and gateway.link_notice == _BROKEN
    gateway.link_up |= back
    tell(desk, 2104, "Market data farm connection is OK:usfarm")
    if not dead:
        gateway.feed.speak()
    if back:
        gateway.release_held()
    return "market data farm is up" + (", but no data flows" if dead else "")


def farm_restored(desk: FaultDesk, values: Values) -> str:
    return farm_back(desk, values.flag("dead"))


def farm_flap(desk: FaultDesk, values: Values) -> str:
    seconds, dead = values.number("seconds"), values.flag("dead")
    desk.later(seconds, lambda: (farm_back(desk, dead), None)[1])
    return f"{farm_lost(desk, values)} for {seconds:g} s" + (", and no data flows after it" if dead else "")


_NOTICES = {
    "2105": "HMDS data farm connection is broken:ushmds",
    "2106": "HMDS data farm connection is OK:ushmds",
    "2107": "HMDS data farm connection is inactive but should be available upon demand.ushmds",
    "2108": "Market data farm connection is inactive but should be available upon demand.usfarm",
    "2157": "Sec-def data farm connection is broken:secdefil",
    "2158": "Sec-def data farm connection is OK:secdefil",
}


def _notice(code: str, message: str) -> Fault:
    def run(desk: FaultDesk, values: Values) -> str:
        if code in ("2105", "2106"):
            desk.gateway.history_up = code == "2106"
        tell(desk, int(code), message)
        return f"notice {code} sent"

    more = "; history requests get 162" if code == "2105" else "; history is answered again" if code == "2106" else ""
    return Fault(f"notice {code}: {message.rstrip('.')}{more}", run)


def competing_session(desk: FaultDesk, values: Values) -> str:
    lines = list(desk.gateway.feed.tickers.lines)
    for line in lines:
        line.client.error(line.req_id, 10197, "No market data during competing live session")
    if not values.flag("data_stays"):
        desk.gateway.feed.hush()
        desk.later(values.number("seconds"), desk.gateway.feed.speak)
    return f"error 10197 sent on {len(lines)} tickers"


_SECONDS = "how long it lasts; 0: until clear"

LINK_FAULTS: dict[str, Fault] = {
    "disconnect": Fault("connections are reset", disconnect, {"client": CLIENT}),
    "refuse": Fault("new connections are closed at once", refuse, {"seconds": number(_SECONDS, 5.0)}),
    "daily_restart": Fault(
        "every connection is dropped and none accepted", daily_restart, {"seconds": number("how long", 30.0)}
    ),
    "half_open": Fault(
        "sockets stay open, but nothing is read or answered any more; the client id is free again",
        half_open,
        {"client": CLIENT, "seconds": number("until the socket is reset; 0: never", 0.0)},
    ),
    "id_in_use": Fault(
        "connections are dropped and their ids stay in use: a fast reconnect gets 326",
        id_in_use,
        {"client": CLIENT, "seconds": number("how long", 5.0)},
    ),
    "mute": Fault(
        "connections are accepted and never answered",
        mute,
        {"client": CLIENT, "seconds": number("how long new ones are mute; 0: until unmute", 0.0)},
    ),
    "unmute": Fault("ends mute for new connections", unmute),
    "delay": Fault(
        "every answer is late; the order of answers is kept",
        delay,
        {
            "ms": number("by so much", 500.0, 0.0, 600_000.0),
            "jitter_ms": number("and up to so much more", 0.0, 0.0, 600_000.0),
            "seconds": number(_SECONDS, 0.0),
        },
    ),
    "pacing": Fault("error 100, then the connection is closed", pacing, {"client": CLIENT}),
    "id_rollback": Fault("nextValidId is too low", id_rollback, {"by": number("by so many", 1000.0)}),
    "error": Fault(
        "any error message",
        send_error,
        {
            "code": number("error code", None, 0, 99_999),
            "req_id": number("request or order id; -1: none", -1, -1, 2**31 - 1),
            "message": text("its text", "injected"),
            "client": CLIENT,
        },
    ),
    "1300": Fault("the socket port has changed", port_changed, {"port": number("new port", 4003, 1, 65_535)}),
    "1100": Fault("link to the broker lost: no data, order messages wait", lost),
    "2110": Fault("the same as 1100, but announced by 2110; 2104 ends it as well as 1101 and 1102", broken),
    "1101": Fault("link restored, subscriptions lost: they have to be asked for anew", restored_data_lost),
    "1102": Fault(
        "link restored, data kept: subscriptions go on with what has changed meanwhile, without 317",
        restored_data_kept,
        {"dead": DEAD},
    ),
    "link_flap": Fault(
        "1100, and after a while 1101 or 1102",
        link_flap,
        {"seconds": number("how long", 3.0, 0.001), "then": text("1101, 1102 or 1102-dead", "1102")},
    ),
    "2103": Fault("market data farm lost: no data", farm_lost),
    "2104": Fault("market data farm restored", farm_restored, {"dead": DEAD}),
    "farm_flap": Fault(
        "2103, and after a while 2104", farm_flap, {"seconds": number("how long", 3.0, 0.001), "dead": DEAD}
    ),
    **{code: _notice(code, message) for code, message in _NOTICES.items()},
    "competing_session": Fault(
        "10197 on every ticker, and no market data",
        competing_session,
        {"seconds": number(_SECONDS, 0.0), "data_stays": flag("the error alone; data goes on")},
    ),
}
