"""Order ids on a disk that is full, and after a state directory that was lost."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from fault_world import FLATTEN, World, simulate

from engine.broker.statefile import BLOCK, OrderIds
from engine.domain.codes import OrderState


class FullDisk:
    """Takes everything, writes nothing while ``full``."""

    def __init__(self) -> None:
        self.full = True
        self.count = self.done = 0

    @property
    def error(self) -> str:
        return "state: No space left on device" if self.full else ""

    def submit(self, path: Path, data: bytes) -> int:
        self.count += 1
        self.done = self.done if self.full else self.count
        return self.count

    def written(self, path: Path) -> int:
        return self.done

    def drain(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        pass


def test_on_a_full_disk_entries_are_refused_by_name_and_closing_goes_on() -> None:
    async def story(w: World) -> None:
        await w.until(lambda: w.quiet, 60.0, "a quiet start")
        bought = w.order(0, 20)
        await w.until(lambda: OrderState.FILLED in w.verdicts.get(bought, []), 5.0, "a position")
        w.bridge._writer.close()
        disk = w.bridge._writer = FullDisk()  # type: ignore[assignment]
        ids = w.bridge._ids
        ids.raise_to(ids.mark - 2)  # two are left
        passed = [w.order(1, 1, -0.03), w.order(2, 1, -0.03)]
        await w.until(lambda: all(i in w.verdicts for i in passed), 5.0, "what is reserved is used")
        await w.run(2.0)
        entry = w.order(1, 2, -0.02)
        await w.until(lambda: entry in w.refused, 5.0, "an entry is refused")
        assert "state_dir full" in w.refused[entry]
        close = w.order(0, -20, flags=FLATTEN)
        await w.until(lambda: OrderState.FILLED in w.verdicts.get(close, []), 5.0, "the position is closed")
        disk.full = False
        await w.run(1.5)
        late = w.order(1, 3, -0.02)
        await w.until(lambda: OrderState.WORKING in w.verdicts.get(late, []), 5.0, "entries pass again")
        assert not w.doubled()

    simulate(story, seed=7)


def test_done_orders_and_executions_raise_the_counter_where_the_mark_was_lost() -> None:
    async def story(w: World) -> None:
        await w.until(lambda: w.quiet, 60.0, "a quiet start")
        w.bridge._ids.raise_to(5_000)
        await w.run(1.0)
        done = w.order(0, 20)
        await w.until(lambda: OrderState.FILLED in w.verdicts.get(done, []), 5.0, "an order that is done")
        used = w.bridge.register.by_intent[done].order_id
        state = w.context.state_dir
        w.kill_bridge()
        (state / "risk.bridge.json").unlink()
        w.start_bridge()
        assert w.bridge._ids.peek() > used, "the store knows it"
        w.kill_bridge()
        (state / "risk.bridge.json").unlink()
        (state / "orders.bridge").unlink()
        w.fault("id_rollback", by=10_000)
        w.start_bridge()
        assert w.bridge._ids.peek() < used
        await w.until(lambda: w.bridge.books.reconciled, 10.0, "the books")
        assert w.bridge._ids.peek() > used, "the executions know it"

    simulate(story, seed=7)


def test_ids_are_reserved_half_a_block_ahead() -> None:
    ids = OrderIds(0)
    ids.confirm(ids.reserve() or 0)
    for _ in range(BLOCK // 2 - 1):
        ids.take()
    assert ids.reserve() is None
    ids.take()
    mark = ids.reserve()
    assert mark
    assert ids.ready(), "the rest of the block is used while the next one is written"
