"""Backups: made while trading, verified by restoring, restored after destruction, never rolling back what must hold."""

from __future__ import annotations

import csv
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config, from_mapping
from engine.model.bundle import Registry
from engine.model.params import Model
from engine.store.backup import backup, backups, check
from engine.store.blocks import BlockKind, Header, encode
from engine.store.files import StoreError
from engine.store.journal import Journal, journal_path, verify
from engine.store.journal_read import JournalReader
from engine.store.manifest import read_manifest
from engine.store.read import read_day
from engine.store.restore import restore
from engine.store.rows import Batch, Names
from engine.store.seal import seal_closed_days
from engine.store.segments import SegmentWriter

from .conftest import events, execution, ticks

DAY_NS = 86_400_000_000_000
NOON_NS = 1_704_196_800_000_000_000  # 2024-01-02 12:00 UTC


def model() -> Model:
    """A small model with plausible parameters."""
    states, features = 2, 6
    return Model(
        startprob=np.full(states, 0.5),
        transmat=np.array([[0.9, 0.1], [0.1, 0.9]]),
        means=np.arange(states * features, dtype=float).reshape(states, features),
        covars=np.stack([np.eye(features)] * states),
        shift=np.zeros(features),
        scale=np.ones(features),
        psi_edges=np.tile(np.linspace(-1, 1, 9), (features, 1)),
        psi_shares=np.full((features, 10), 0.1),
        loglik_floor=-50.0,
        schema="1:a,b,c,d,e,f",
        provenance="synthetic",
        bar_s=10.0,
        version=0,
        created_wall_ns=1,
        window="test",
        metrics={},
    )


@pytest.fixture
def config(tmp_path: Path, names: Names) -> Config:
    """A state directory that has traded: a model, ticks of two days, logs, a journal, a latch."""
    state = tmp_path / "state"
    found = from_mapping({"instance": {"state_dir": str(state), "backup_dir": str(tmp_path / "backups")}})
    (state / "logs").mkdir(parents=True)
    (state / "logs" / "algo.log").write_text('{"message": "hello"}\n')
    (state / "latch.json").write_text('{"kill": false}')
    (state / "risk.json").write_text('{"order_id_mark": 10, "peak_usd": 1000000.0}')
    registry = Registry(state / "models")
    registry.promote(registry.add(model()).version)
    writer = SegmentWriter(state / "ticks", "ticks", 1 << 20)
    for n, day in enumerate((20240101, 20240102)):
        header = Header(BlockKind.TICK, n * 100, n * 100 + 100, 1, 0, 0, 0)
        writer.append(day, encode(header, ticks(100, n * 100)))
    writer.close()
    seal_closed_days(state, 20240102)
    journal = Journal(journal_path(state))
    for n in range(3):
        journal.append(
            [
                Batch("events.algo", 1, events(20, n * 20), 0, n * 20 + 20, 1),
                Batch("executions", 1, execution(f"9.{n}.01.01", 10.0, 5.0, sequence=n), 0, n + 1, 1),
            ],
            names,
        )
    journal.close()
    return found


def tree(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_was_destroyed_comes_back_byte_for_byte_but_for_what_must_never_roll_back(config: Config) -> None:
    made = backup(config, NOON_NS)
    state = config.state_dir
    models, fills = tree(state / "models"), JournalReader(journal_path(state)).fills()
    assert (made.date, made.fills, made.journal_rows) == ("2024-01-02", 3, 63)
    shutil.rmtree(state)
    done = restore(config, "2024-01-02")
    assert done.journal
    assert tree(state / "models") == models
    assert Registry(state / "models").load().version == 1
    assert verify(journal_path(state)).rows == 63
    assert JournalReader(journal_path(state)).fills() == fills
    assert read_day(state, 20240101).tobytes() == ticks(100).tobytes()
    assert not (state / "latch.json").exists()
    assert not (state / "risk.json").exists()


def test_a_restore_into_a_living_state_keeps_journal_latch_mark_and_drawdown(config: Config, names: Names) -> None:
    backup(config, NOON_NS)
    state = config.state_dir
    journal = Journal(journal_path(state))
    journal.append([Batch("events.algo", 1, events(5, 60), 0, 65, 1)], names)
    journal.close()
    (state / "latch.json").write_text('{"kill": true}')
    (state / "risk.json").write_text('{"order_id_mark": 99}')
    done = restore(config, "20240102")
    assert not done.journal
    assert verify(journal_path(state)).rows == 68
    assert (state / "latch.json").read_text() == '{"kill": true}'
    assert (state / "risk.json").read_text() == '{"order_id_mark": 99}'


def test_copying_the_models_by_hand_restores_them_as_the_runbook_says(config: Config) -> None:
    made = backup(config, NOON_NS)
    target = config.state_dir / "models"
    shutil.rmtree(target)
    target.mkdir()
    for path in (made.paths["hmm"] / "models").iterdir():
        shutil.copy2(path, target / path.name)
    assert Registry(target).load(1).provenance == "synthetic"


def test_a_backup_made_while_rows_are_committed_is_whole(config: Config, names: Names) -> None:
    journal = Journal(journal_path(config.state_dir))
    stop = threading.Event()
    first = 60

    def trade() -> None:
        at = first
        while not stop.is_set():
            journal.append([Batch("events.algo", 1, events(10, at), 0, at + 10, 1)], names)
            at += 10

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        made = backup(config, NOON_NS)
    finally:
        stop.set()
        thread.join()
        journal.close()
    assert verify(journal_path(made.paths["fills"])).rows == made.journal_rows >= 63


def test_fills_are_exported_once_each_as_csv(config: Config) -> None:
    made = backup(config, NOON_NS)
    with (made.paths["fills"] / "fills.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["exec_id"] for r in rows] == ["9.0.01.01", "9.1.01.01", "9.2.01.01"]
    assert (rows[0]["symbol"], rows[0]["side"], float(rows[0]["qty"])) == ("AAPL", "BUY", 10.0)


@pytest.mark.parametrize("name", ["hmm/models/model-000001.npz", "fills/fills.csv", "fills/journal.db", "logs/ticks"])
def test_a_damaged_backup_is_refused_before_anything_is_written(config: Config, name: str) -> None:
    made = backup(config, NOON_NS)
    kind, _, rest = name.partition("/")
    path = made.paths[kind] / rest
    if path.is_dir():
        path = next(path.rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # sealed segments are hard links
    path.write_bytes(data)
    before = tree(config.state_dir)
    with pytest.raises(StoreError, match="was changed"):
        restore(config, "2024-01-02")
    assert tree(config.state_dir) == before


def test_a_day_without_a_backup_is_refused_with_the_days_there_are(config: Config) -> None:
    backup(config, NOON_NS)
    with pytest.raises(StoreError, match="there is 2024-01-02"):
        restore(config, "2023-12-31")
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        restore(config, "yesterday")


def test_a_second_backup_of_the_day_replaces_the_first_and_a_failed_one_does_not(
    config: Config, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(config, NOON_NS)
    journal = Journal(journal_path(config.state_dir))
    journal.append([Batch("events.algo", 1, events(1, 60), 0, 61, 1)], names)
    journal.close()
    second = backup(config, NOON_NS + 1)
    assert second.journal_rows == 64
    (config.state_dir / "models" / "model-000002.npz").write_bytes(b"no model")
    with pytest.raises(StoreError, match="does not load"):
        backup(config, NOON_NS + 2)
    check(second.paths)
    assert [p.name for p in (Path(config.instance.backup_dir) / "hmm").iterdir()] == ["2024-01-02"]


def test_sealed_segments_are_linked_to_the_earlier_backup_not_copied(config: Config) -> None:
    first = backup(config, NOON_NS)
    second = backup(config, NOON_NS + DAY_NS)
    (old,), (new,) = (list(b.paths["logs"].rglob("*.parquet")) for b in (first, second))
    assert old.stat().st_ino == new.stat().st_ino


def test_backups_past_retention_go_but_never_the_last(config: Config) -> None:
    backup(config, NOON_NS)
    later = backup(config, NOON_NS + 31 * DAY_NS)
    root = Path(config.instance.backup_dir)
    assert {p.name for p in later.expired} == {"2024-01-02"}
    assert backups(root) == {kind: ["2024-02-02"] for kind in ("hmm", "logs", "fills")}


def test_an_empty_state_directory_can_be_backed_up(tmp_path: Path) -> None:
    found = from_mapping({"instance": {"state_dir": str(tmp_path / "s"), "backup_dir": str(tmp_path / "b")}})
    made = backup(found, NOON_NS)
    manifest = read_manifest(made.paths["fills"])
    assert manifest is not None
    assert (manifest.journal_rows, manifest.fills) == (0, 0)
