"""The journal: nothing twice, nothing lost, nothing changed unseen."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.codes import EventKind, Side
from engine.store.blocks import Records
from engine.store.files import StoreError
from engine.store.fold import positions
from engine.store.journal import Journal, JournalCorrupt, JournalFailed, journal_path, move_aside, read_only, verify
from engine.store.journal_read import JournalReader
from engine.store.rows import TABLES, Batch, Names, split_exec_id
from engine.store.verify import main as verify_main

from .conftest import events, execution, intent


def batch(records: Records, ring: str = "events.algo", *, lost: int = 0, epoch: int = 1, after: int = 0) -> Batch:
    following = after or int(records[-1]["sequence"]) + 1
    return Batch(ring, epoch, records, lost, following, 1_000_000_000)


def sequences(path: Path, table: str = "events") -> list[int]:
    with read_only(path) as db:
        return [r[0] for r in db.execute(f"SELECT sequence FROM {table} ORDER BY id")]


def test_records_offered_again_are_written_once(tmp_path: Path, names: Names) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append([batch(events(10))], names)
    assert journal.append([batch(events(10))], names) == []
    journal.append([batch(events(10, first=5))], names)
    journal.close()
    again = Journal(path)
    again.append([batch(events(20))], names)
    assert again.cursor("events.algo", 1) == 20
    again.close()
    assert sequences(path) == list(range(20))
    assert verify(path).sound


def test_a_ring_of_another_incarnation_starts_anew(tmp_path: Path, names: Names) -> None:
    journal = Journal(journal_path(tmp_path))
    journal.append([batch(events(10))], names)
    assert journal.cursor("events.algo", 2) is None
    assert len(journal.append([batch(events(4), epoch=2)], names)) == 4
    journal.close()


@given(st.lists(st.tuples(st.sampled_from(["events.algo", "events.watchdog"]), st.integers(0, 30), st.integers(1, 20))))
@settings(max_examples=20, deadline=None)
def test_any_order_of_overlapping_batches_gives_rising_sequences_and_a_sound_chain(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, int, int]]
) -> None:
    path = journal_path(tmp_path_factory.mktemp("j"))
    journal = Journal(path)
    names = Names((), 0, lambda wall: 20240102)
    for ring, first, count in parts:
        journal.append([batch(events(count, first), ring)], names)
    journal.close()
    with read_only(path) as db:
        for ring in ("events.algo", "events.watchdog"):
            found = [r[0] for r in db.execute("SELECT sequence FROM events WHERE ring = ? ORDER BY id", (ring,))]
            assert found == sorted(set(found))
    assert verify(path).sound


def test_rows_can_be_neither_changed_nor_deleted(tmp_path: Path, names: Names) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append([batch(events(3))], names)
    journal.close()
    with sqlite3.connect(path) as db:
        for statement in ("UPDATE events SET text = 'x' WHERE id = 2", "DELETE FROM events WHERE id = 2"):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                db.execute(statement)


@pytest.mark.parametrize(
    ("forgery", "broken_at"),
    [
        ("UPDATE events SET code = code + 1 WHERE id = 7", 7),
        ("UPDATE events SET value = 0.0 WHERE id = 7", 7),
        ("UPDATE events SET hash = x'00' WHERE id = 7", 7),
        ("DELETE FROM events WHERE id = 7", 7),
        ("DELETE FROM events WHERE id > 7", 8),
        ("UPDATE events SET id = 100 WHERE id = 12", 12),
        ("UPDATE meta SET value = 6 WHERE key = 'head_id'", 7),
        ("UPDATE meta SET value = x'01' WHERE key = 'head_hash'", 12),
    ],
)
def test_a_forgery_that_gets_past_the_triggers_breaks_the_chain_where_it_was_done(
    tmp_path: Path, names: Names, forgery: str, broken_at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append([batch(events(12))], names)
    journal.close()
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER events_no_update")
    db.execute("DROP TRIGGER events_no_delete")
    db.execute(forgery)
    db.commit()
    db.close()
    verdict = verify(path)
    assert not verdict.sound
    assert verdict.broken_at == broken_at
    assert verify_main([str(tmp_path)]) == 1
    assert f"row {broken_at}" in capsys.readouterr().err
    with pytest.raises(JournalCorrupt, match="move-aside"):
        Journal(path)


def test_every_column_is_under_the_hash(tmp_path: Path, names: Names) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append(
        [
            batch(events(1)),
            batch(events(1, kind=EventKind.GUARDRAIL), "events.watchdog"),
            batch(events(1, kind=EventKind.AUDIT), "events.cockpit"),
            batch(intent(5), "orders.algo"),
            batch(execution("1.2.03.01", 5.0, 10.0), "executions"),
        ],
        names,
    )
    journal.close()
    db = sqlite3.connect(path)
    for table, columns in TABLES.items():
        db.execute(f"DROP TRIGGER {table}_no_update")
        for column, _ in columns:
            (before,) = db.execute(f"SELECT {column} FROM {table}").fetchone()
            db.execute(f"UPDATE {table} SET {column} = ?", (12_345 if before is None else None,))
            db.commit()
            assert not verify(path).sound, (table, column)
            db.execute(f"UPDATE {table} SET {column} = ?", (before,))
            db.commit()
            assert verify(path).sound
    db.close()


def test_a_moved_journal_is_kept_and_a_new_one_begins(tmp_path: Path, names: Names) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append([batch(events(3))], names)
    journal.close()
    kept = move_aside(path)
    assert not path.exists()
    assert verify(kept).rows == 3
    fresh = Journal(path)
    assert fresh.head_id == 0
    fresh.close()


def test_a_full_disk_fails_the_commit_by_name_and_loses_nothing(disk: Callable[[int], Path], names: Names) -> None:
    tiny_disk = disk(1_500)
    path = journal_path(tiny_disk)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(700 * 1024))
    journal = Journal(path)
    done = 0

    def fill() -> None:
        nonlocal done
        for _ in range(200):
            journal.append([batch(events(200, done, text=b"x" * 100))], names)
            done += 200

    with pytest.raises(JournalFailed) as failed:
        fill()
    assert failed.value.disk_full
    ballast.unlink()
    journal.reopen()
    journal.append([batch(events(200, done, text=b"x" * 100))], names)
    journal.close()
    assert sequences(path) == list(range(done + 200))
    assert verify(path).sound


def test_no_journal_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing has been recorded"), read_only(tmp_path / "journal.db"):
        pass


def test_since_gives_only_what_is_newer_in_order(tmp_path: Path, names: Names) -> None:
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append([batch(events(30))], names)
    with JournalReader(path) as reader:
        assert [e["id"] for e in reader.events(limit=5)] == [26, 27, 28, 29, 30]
        assert [e["id"] for e in reader.events(since=3, limit=4)] == [4, 5, 6, 7]
        assert reader.events(since=30) == []
        journal.append([batch(events(1, 30))], names)
        assert [e["id"] for e in reader.events(since=30)] == [31]
        assert reader.incident(12)[0]["table"] == "events"
        assert reader.counts()["events"] == 31
    journal.close()


def test_an_exec_id_splits_into_base_and_revision() -> None:
    assert split_exec_id("0000e0d5.6161.01.02") == ("0000e0d5.6161.01", 2)
    assert split_exec_id("manual") == ("manual", 0)


@given(st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1, 1_000)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_position_and_pnl_add_up_whatever_the_fills(trades: list[tuple[int, int]]) -> None:
    fills = [
        {
            "id": i, "symbol": "X", "side": Side(1 if q > 0 else -1).name, "qty": abs(q), "price": p / 10,
            "commission_usd": 0.5, "exec_wall_ns": i,
        }
        for i, (q, p) in enumerate(trades)
    ]  # fmt: skip
    found = positions(fills)["X"]
    assert found.qty == sum(q for q, _ in trades)
    assert found.cash_flow_usd == pytest.approx(-sum(q * p / 10 for q, p in trades))
    mark = 77.0
    unrealized = found.qty * (mark - found.avg_cost)
    assert found.realized_pnl_usd + unrealized == pytest.approx(found.cash_flow_usd + found.qty * mark, abs=1e-6)
    assert found.commissions_usd == pytest.approx(0.5 * len(trades))
    assert not np.isnan(found.avg_cost)
