"""``l2dash order`` and ``l2dash cancel``: through the gate like every order, with no override."""

from __future__ import annotations

import math
from pathlib import Path

import click

from engine.cli import show
from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import json_option, target, target_options

VERDICT_S = 2.0


@click.command()
@target_options
@json_option
@click.argument("symbol")
@click.argument("side", type=click.Choice(["BUY", "SELL"], case_sensitive=False))
@click.argument("qty", type=click.IntRange(min=1))
@click.option("--limit", "limit_price", type=float, metavar="P", help="limit price; a market order without it")
@click.option("--tif", type=click.Choice(["DAY", "IOC", "GTC"], case_sensitive=False), default="DAY", show_default=True)
@click.option("--reduce-only", is_flag=True, help="never past zero of the confirmed position")
def order(
    config_file: Path | None,
    instance: str | None,
    as_json: bool,
    symbol: str,
    side: str,
    qty: int,
    limit_price: float | None,
    tif: str,
    reduce_only: bool,
) -> None:
    """Send one order: l2dash order AAPL BUY 10 --limit 150. Exit 3 with the guardrail's name if the gate refuses it."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import IntentFlag, IntentKind, OrderState, OrderType, Refusal, Side, TimeInForce
    from engine.runtime.ids import order_ref

    if limit_price is not None and not (math.isfinite(limit_price) and limit_price > 0):
        raise click.BadParameter(f"{limit_price} is not a positive price", param_hint="--limit")
    price = "MKT" if limit_price is None else f"LMT {limit_price:g}"
    words = f"{side.upper()} {qty} {symbol.upper()} {price} {tif.upper()}"
    with Access(target(config_file, instance)) as access:
        instrument = access.instrument(symbol)
        if not access.alive(topology.BRIDGE):
            raise Refused(f"{topology.BRIDGE} does not run: start it with `l2dash start {topology.BRIDGE}`")
        intent = access.send_intent(
            instrument,
            f"order {words}",
            kind=int(IntentKind.NEW),
            side=int(Side[side.upper()]),
            order_type=int(OrderType.MKT if limit_price is None else OrderType.LMT),
            tif=int(TimeInForce[tif.upper()]),
            qty=float(qty),
            limit_price=math.nan if limit_price is None else limit_price,
            flags=int(IntentFlag.REDUCE_ONLY) if reduce_only else 0,
        )
        # SENT is the gate's word; the broker's own first word usually follows within the same wait.
        verdict = access.verdict(intent, VERDICT_S, settled=lambda s: s not in (OrderState.PENDING, OrderState.SENT))
    reference = order_ref(intent)
    if verdict is not None and verdict.state == OrderState.REFUSED:
        name = Refusal(verdict.refusal).name if verdict.refusal in set(Refusal) else str(verdict.refusal)
        raise Refused(f"{words} refused by {name}: {verdict.text}")
    state = "PENDING" if verdict is None else verdict.state.name
    if verdict is not None and verdict.state == OrderState.REJECTED:
        raise CliError(f"{words} rejected by the broker: {verdict.text}")
    _print(as_json, {"order_id": reference, "state": state, "order": words})


def _print(json_wanted: bool, result: dict[str, str]) -> None:
    if json_wanted:
        show.as_json(result)
    else:
        click.echo(f"{result['order']}: {result['state']} ({result['order_id']})")


@click.command()
@target_options
@click.argument("order_id", required=False)
@click.option("--all", "everything", is_flag=True, help="every working order")
def cancel(config_file: Path | None, instance: str | None, order_id: str | None, everything: bool) -> None:
    """Cancel one working order by its id (L2:..., as `l2dash orders` shows it), or all of them."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind, IntentKind, OrderState
    from engine.runtime.ids import intent_of

    if bool(order_id) == everything:
        raise click.UsageError("name one order id, or --all")
    wanted = intent_of(order_id or "") if order_id else 0
    if order_id and not wanted:
        raise click.BadParameter(
            f"{order_id} is not an order id of ours: they look like L2:1a2b3c", param_hint="ORDER_ID"
        )
    with Access(target(config_file, instance)) as access:
        if not access.alive(topology.BRIDGE):
            raise Refused(f"{topology.BRIDGE} does not run: start it with `l2dash start {topology.BRIDGE}`")
        if everything:
            command = access.command(CommandKind.CANCEL_ALL, to=topology.BRIDGE, reason="l2dash cancel --all")
            answer = access.answer(command, VERDICT_S, of=topology.BRIDGE)
            if answer is not None and not answer.done:
                raise Refused(f"cancel refused: {answer.text}")
            say(
                "cancel of every working order is on its way"
                if answer is None
                else "every working order is being cancelled"
            )
            return
        intent = access.send_intent(None, f"cancel {order_id}", kind=int(IntentKind.CANCEL), target_id=wanted)
        verdict = access.verdict(intent, VERDICT_S)
    if verdict is not None and verdict.state == OrderState.REFUSED:
        raise Refused(f"cancel of {order_id} refused: {verdict.text}")
    say(f"cancel of {order_id} {'is on its way' if verdict is None else 'sent'}")
