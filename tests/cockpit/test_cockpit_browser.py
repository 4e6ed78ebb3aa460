"""The pages in a real browser, over a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.cockpit.login import create_login
from engine.domain.codes import Badge, BadgeState, CommandKind, LinkState, Refusal

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("L2DASH_CHROMIUM", "/usr/bin/chromium")
AXE = os.environ.get("L2DASH_AXE", "")
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Desk:
    rig: Any
    page: Any
    troubles: list[str] = field(default_factory=list)

    def seen(self, kind: CommandKind) -> int:
        return [k for k, _ in self.rig.plant.seen].count(kind)

    async def badge(self, name: str, state: str) -> None:
        await self.page.wait_for_selector(f'[data-badge="{name}"][data-state="{state}"]')

    async def until(self, condition: Any, what: str) -> None:
        await self.rig.until(condition, what)


@pytest.fixture
async def desk(rig) -> AsyncIterator[Desk]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium, or name one in L2DASH_CHROMIUM")
    from playwright.async_api import async_playwright

    rig.plant.morning()
    rig.plant.position(0, 30, 149.0)
    rig.plant.position(1, -10, 411.0)
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(viewport={"width": 1366, "height": 768})
        page = await context.new_page()
        page.set_default_timeout(15_000)
        desk = Desk(rig, page)
        page.on("console", lambda m: desk.troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: desk.troubles.append(str(e)))
        await page.add_init_script(
            "addEventListener('securitypolicyviolation', e =>"
            " console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI));"
            "window.prevented = []; addEventListener('keydown', e =>"
            " setTimeout(() => prevented.push([e.key, e.defaultPrevented])));"
        )
        key = create_login(rig.state_dir, rig.plant.clock.wall_ns(rig.plant.clock.now_ns()))
        await page.goto(f"{rig.base}/cockpit#k={key}")
        await desk.badge("SPREAD", "OK")
        yield desk
        await browser.close()


async def test_login_leaves_no_key_in_the_address_and_nothing_is_reported(desk: Desk) -> None:
    assert "#" not in desk.page.url
    assert await desk.page.text_content('[data-testid="mode"]') == "SIM"
    await desk.page.wait_for_selector("canvas.ladder")
    await asyncio.sleep(1.2)
    await desk.page.goto(f"{desk.rig.base}/analytics")
    await desk.badge("SPREAD", "OK")
    await desk.page.wait_for_selector("text=Model health")
    await desk.page.wait_for_selector(".services td >> text=READY")
    await asyncio.sleep(1.2)
    assert desk.troubles == []


async def test_a_used_key_shows_how_to_log_in(desk: Desk) -> None:
    await desk.page.context.clear_cookies()
    await desk.page.goto(f"{desk.rig.base}/cockpit")
    await desk.page.wait_for_selector("text=l2dash login")


async def test_badges_and_trading_state_follow_the_cells(desk: Desk) -> None:
    desk.rig.plant.badge(Badge.DD, BadgeState.TRIPPED, 5120, 5000, "5,120 below the day's peak")
    desk.rig.plant.kill(Badge.DD)
    await desk.badge("DD", "TRIPPED")
    text = await desk.page.inner_text('[data-badge="DD"]')
    assert "TRIPPED" in text
    assert "$5,120" in text
    assert "/ $5,000" in text
    assert "below the day's peak" in text
    await desk.page.wait_for_selector('[data-testid="trading-state"].KILLED')
    await desk.page.wait_for_selector("text=Reset…")
    assert desk.troubles == []


async def test_ctrl_f_pauses_at_once_shows_what_closes_and_flattens_after_the_countdown(desk: Desk) -> None:
    await desk.page.keyboard.press("Control+f")
    overlay = await desk.page.wait_for_selector('[data-testid="flatten-overlay"]')
    await desk.until(lambda: desk.seen(CommandKind.PAUSE), "paused at once")
    assert desk.seen(CommandKind.FLATTEN) == 0, "the countdown still runs"
    text = await overlay.inner_text()
    assert "SELL 30" in text
    assert "BUY 10" in text
    await desk.until(lambda: desk.seen(CommandKind.FLATTEN), "flattened")
    assert ["f", True] in await desk.page.evaluate("prevented"), "the browser's own find must not open"
    await desk.page.wait_for_selector('[data-testid="flatten-state"] >> text=ROUND ONE')
    desk.rig.plant.flat()
    await desk.page.wait_for_selector('[data-testid="flatten-state"] >> text=FLAT, confirmed by the broker')
    assert desk.seen(CommandKind.FLATTEN) == 1
    assert desk.troubles == []


async def test_escape_stops_the_countdown_and_leaves_the_pause(desk: Desk) -> None:
    await desk.page.keyboard.press("Control+f")
    await desk.page.wait_for_selector('[data-testid="countdown"]')
    await desk.page.keyboard.press("Escape")
    await desk.page.wait_for_selector('[data-testid="flatten-overlay"]', state="detached")
    await asyncio.sleep(2.3)
    assert desk.seen(CommandKind.FLATTEN) == 0
    assert desk.seen(CommandKind.PAUSE) == 1
    await desk.page.wait_for_selector('[data-testid="trading-state"].PAUSED')
    await desk.page.click('[data-testid="resume"]')
    await desk.page.wait_for_selector('[data-testid="trading-state"].ACTIVE')


async def test_a_second_press_fires_at_once_and_command_works_like_control(desk: Desk) -> None:
    await desk.page.clock.install()  # the countdown stands still: only the second press can fire
    await desk.page.keyboard.press("Meta+f")
    await desk.page.wait_for_selector('[data-testid="countdown"]')
    await desk.page.keyboard.press("Meta+f")
    await desk.until(lambda: desk.seen(CommandKind.FLATTEN), "fired by the second press")


async def test_key_repeats_do_not_count_as_a_second_press_but_a_hold_fires(desk: Desk) -> None:
    await desk.page.keyboard.down("Control")
    await desk.page.keyboard.down("f")
    for _ in range(5):
        await desk.page.keyboard.down("f")  # auto-repeat
    assert desk.seen(CommandKind.FLATTEN) == 0
    await desk.page.wait_for_selector('[data-testid="flatten-state"]')
    await desk.until(lambda: desk.seen(CommandKind.FLATTEN), "held")
    await desk.page.keyboard.up("f")
    await desk.page.keyboard.up("Control")
    assert desk.seen(CommandKind.FLATTEN) == 1


async def test_ctrl_r_reconnects_once_when_down_and_twice_when_up(desk: Desk) -> None:
    await desk.page.keyboard.press("Control+r")
    await desk.page.wait_for_selector("text=press Ctrl+R again")
    assert desk.seen(CommandKind.RECONNECT) == 0
    await desk.page.keyboard.press("Control+r")
    await desk.until(lambda: desk.seen(CommandKind.RECONNECT) == 1, "double press")
    broker = desk.rig.plant.broker.value[0]
    broker["link"], broker["down_since_ns"] = LinkState.DOWN, desk.rig.plant.clock.now_ns()
    desk.rig.plant.broker.publish()
    await desk.page.wait_for_selector(".lamp.bad >> text=broker down")
    await desk.page.keyboard.press("Control+r")
    await desk.until(lambda: desk.seen(CommandKind.RECONNECT) == 2, "single press")
    assert ["r", True] in await desk.page.evaluate("prevented")


async def test_the_flatten_button_needs_a_hold(desk: Desk) -> None:
    button = desk.page.locator('[data-testid="flatten-button"]')
    await button.click()
    await desk.page.wait_for_selector("text=hold the button")
    assert desk.seen(CommandKind.FLATTEN) == 0
    await button.hover()
    await desk.page.mouse.down()
    await desk.until(lambda: desk.seen(CommandKind.FLATTEN) == 1, "held")
    await desk.page.mouse.up()


async def test_an_order_from_the_ticket_needs_arming_and_lands_in_the_pane(desk: Desk) -> None:
    await desk.page.fill('[aria-label="Limit price"]', "149.50")
    await desk.page.click('[data-testid="buy"]')
    await desk.page.wait_for_selector('[data-testid="verdict"] >> text=not armed')
    await desk.page.click('[data-testid="arm"]')
    await desk.page.wait_for_selector('[data-testid="arm"] >> text=ARMED')
    await desk.page.click('[data-testid="buy"]')
    await desk.page.wait_for_selector('[data-testid="blotter"] td >> text=WORKING')
    await desk.page.fill('[aria-label="Quantity"]', "1.5")
    await desk.page.click('[data-testid="buy"]')
    await desk.page.wait_for_selector('[aria-label="Quantity"].wrong')
    desk.rig.plant.refuse = Refusal.GROSS_EXPOSURE
    await desk.page.fill('[aria-label="Quantity"]', "1")
    await desk.page.click('[data-testid="buy"]')
    await desk.page.wait_for_selector('[data-testid="last-reject"] >> text=GROSS_EXPOSURE')
    await desk.page.click("text=Positions")
    await desk.page.wait_for_selector('[data-testid="blotter"] td >> text=+30')
    await desk.page.reload()
    await desk.page.wait_for_selector('[data-testid="arm"] >> text=Arm')
    await desk.until(lambda: not desk.rig.cockpit.stream.arming.leases, "a reload disarms")


async def test_a_dead_server_is_said_loudly(desk: Desk) -> None:
    desk.rig.tasks[0].cancel()  # frames stop; the connection stays
    await desk.page.wait_for_selector("text=NO FRAMES")
    await desk.badge("SPREAD", "STALE")
    assert await desk.page.is_disabled('[data-testid="buy"]')
    assert await desk.page.is_enabled('[data-testid="flatten-button"]')


async def test_fills_arrive_and_csv_is_exported(desk: Desk) -> None:
    exec_id = desk.rig.plant.execution(1, 0, 1, 7, 150.02)
    await desk.page.click("text=Fills")
    await desk.page.wait_for_selector(f"text={exec_id}")
    async with desk.page.expect_download() as download:
        await desk.page.click("text=CSV")
    path = await (await download.value).path()
    assert exec_id in Path(path).read_text()
    assert desk.troubles == []


@pytest.mark.parametrize("path", ["/cockpit", "/analytics"])
async def test_axe_finds_nothing(desk: Desk, path: str) -> None:
    if not AXE:
        pytest.skip("axe-core is not here: npm pack axe-core and name its axe.min.js in L2DASH_AXE")
    await desk.page.goto(desk.rig.base + path)
    await desk.badge("SPREAD", "OK")
    await desk.page.evaluate(Path(AXE).read_text())
    found = await desk.page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found["violations"]] == []
