from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engine.risk import latch as latches
from engine.risk.latch import FileWriter, Latch

S = 1_000_000_000


def other_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latches, "boot_id", lambda: "another boot")


def test_what_was_latched_is_read_back_whole(tmp_path: Path) -> None:
    latch = Latch(
        kill=True, kill_id=7, kill_reasons=16, kill_text="DD", pause=True, symbol_kill=3, locked_session=20240102,
        boot_id=latches.boot_id(),
    )  # fmt: skip
    latches.save(tmp_path, latch)
    assert latches.load(tmp_path, "sim", 9, 9) == latch


@pytest.mark.parametrize("uptime_s", [10, 1_000_000])
def test_after_a_reboot_the_cooling_starts_anew_whatever_the_former_uptime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uptime_s: int
) -> None:
    """Monotonic times of the former boot may lie far behind or far ahead of the new clock."""
    before = Latch(kill=True, kill_id=uptime_s * S, pause=True, pause_id=uptime_s * S, released_kill_id=uptime_s * S,
                   released_pause_id=uptime_s * S, boot_id=latches.boot_id())  # fmt: skip
    latches.save(tmp_path, before)
    other_boot(monkeypatch)
    after = latches.load(tmp_path, "sim", 60 * S, 0)
    assert (after.kill, after.kill_id, after.pause, after.pause_id) == (True, 60 * S, True, 60 * S)
    assert (after.released_kill_id, after.released_pause_id) == (0, 0)


def test_on_the_same_boot_times_are_kept(tmp_path: Path) -> None:
    latches.save(tmp_path, Latch(kill=True, kill_id=7 * S, released_pause_id=3, boot_id=latches.boot_id()))
    after = latches.load(tmp_path, "sim", 60 * S, 0)
    assert (after.kill_id, after.released_pause_id) == (7 * S, 3)


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_file_cut_anywhere_means_latched(tmp_path: Path, at: int) -> None:
    whole = latches.encode(Latch(boot_id=latches.boot_id()))
    (tmp_path / latches.FILE).write_bytes(whole[: min(at, len(whole) - 3)])
    assert latches.load(tmp_path, "sim", 5, 5).kill


@pytest.mark.parametrize("field", ["kill", "pause"])
def test_a_file_without_a_stop_in_it_means_latched(tmp_path: Path, field: str) -> None:
    text = latches.encode(Latch()).decode().replace(f'"{field}": false', f'"{field}": null')
    (tmp_path / latches.FILE).write_text(text)
    assert latches.load(tmp_path, "sim", 5, 5).kill


def test_the_file_is_synced_before_it_takes_its_place_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("sync " + ("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        fsync(descriptor)

    def note_rename(old: Path, new: Path) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    latches.save(tmp_path, Latch())
    assert steps == ["sync file", "rename", "sync directory"]


class Disk:
    """Lets writes fail while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self.tried = threading.Semaphore(0)
        real = latches.replace_file

        def write(path: Path, data: bytes) -> None:
            self.tried.release()
            if self.full:
                raise OSError(28, "No space left on device")
            real(path, data)

        monkeypatch.setattr(latches, "replace_file", write)
        monkeypatch.setattr(latches, "RETRY_S", 0.02)


def test_a_latch_that_did_not_fit_on_the_disk_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, errors = Disk(monkeypatch), []
    files = FileWriter(lambda path, error: errors.append((path, error.errno)))
    path = tmp_path / latches.FILE
    files.write(path, b"old")
    for _ in range(3):
        assert disk.tried.acquire(timeout=10)
    files.write(path, b"new")
    assert disk.tried.acquire(timeout=10)
    assert files.failed(path)
    assert errors == [(path, 28)], "one alarm for one failure, however often it is tried"
    disk.full = False
    while files.failed(path):
        assert disk.tried.acquire(timeout=10)
        files.flush(10)
    assert path.read_bytes() == b"new"
    files.close()


def test_kill_offline_keeps_what_was_known_and_latches(tmp_path: Path) -> None:
    latches.save(tmp_path, replace(Latch(), locked_session=20240102))
    latches.kill_offline(tmp_path, "hands", 4, 5)
    after = latches.load(tmp_path, "sim", 9, 9)
    assert (after.kill, after.kill_text, after.locked_session) == (True, "hands", 20240102)


def test_kill_offline_after_a_reboot_puts_the_times_of_the_former_boot_right(tmp_path: Path) -> None:
    before = Latch(
        kill=True, kill_id=900 * S, kill_text="link", awaits_link=True, lost_since_ns=840 * S, lost_wall_ns=5_000 * S,
        pause=True, pause_id=800 * S, released_kill_id=700 * S, released_pause_id=600 * S, boot_id="A",
    )  # fmt: skip
    latches.save(tmp_path, before)
    latches.kill_offline(tmp_path, "hands", 60 * S, 5_300 * S)
    after = latches.load(tmp_path, "sim", 70 * S, 5_310 * S)
    assert (after.released_kill_id, after.released_pause_id) == (0, 0)
    assert (after.kill_id, after.pause_id, after.kill_text) == (60 * S, 60 * S, "link")
    assert (after.lost_since_ns, after.lost_wall_ns) == (60 * S - 300 * S, 5_000 * S)
    assert after.boot_id == latches.boot_id()


def test_kill_offline_after_a_reboot_latches_now(tmp_path: Path) -> None:
    latches.save(tmp_path, Latch(released_kill_id=700 * S, boot_id="A"))
    latches.kill_offline(tmp_path, "hands", 60 * S, 5_300 * S)
    after = latches.load(tmp_path, "sim", 70 * S, 5_310 * S)
    assert (after.kill, after.kill_id, after.released_kill_id) == (True, 60 * S, 0)


def test_a_latch_that_another_process_writes_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(state_dir: Path) -> Path:
        raise latches.LatchExists("written meanwhile")

    monkeypatch.setattr(latches, "init", late)
    assert not latches.prepare(tmp_path, "sim")


def test_a_new_file_never_takes_the_place_of_one_that_came_a_moment_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / latches.FILE
    latches.save(tmp_path, Latch(kill=True, kill_text="written by the watchdog"))
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as it was when it was looked at
    with pytest.raises(latches.LatchExists, match=r"latch\.json exists"):
        latches.init(tmp_path)
    assert latches.parse(path.read_text()).kill
    assert os.listdir(tmp_path) == [latches.FILE], "and leaves nothing behind"
