"""What ``l2dash doctor`` says about memory is what the kernel really gave."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.cli import doctor
from engine.runtime.context import Context
from engine.runtime.testing import instance
from shm import memory
from shm.memory import Granted


def test_doctor_fails_until_the_regions_of_every_service_are_really_locked(tmp_path: Path) -> None:
    with instance(tmp_path) as inst:
        asked = msgspec.structs.replace(inst.config, runtime=msgspec.structs.replace(inst.config.runtime, mlock=True))
        with Context(inst.config, "recorder") as without:
            without.start_heartbeat(without.clock.now_ns())
            before = doctor.memory_lock(asked)
            assert before.status == doctor.FAIL
            assert "0 B of" in before.found
            assert "least recorder" in before.found
        del without
        context = Context(asked, "recorder")
        context.start_heartbeat(context.clock.now_ns())
        assert context.unlocked == {}
        after = doctor.memory_lock(asked)
        assert after.status == doctor.OK, after.found
        assert "regions mapped by 1 services are locked" in after.found


def test_doctor_says_how_much_came_in_huge_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance(tmp_path) as inst:
        context = inst.context("recorder")
        context.start_heartbeat(context.clock.now_ns())
        real = memory.trial(inst.config.shm_dir.parent)
        given = f"{real.huge >> 20} MiB" if real.huge else "0 B"
        assert f"gave {given} of 8 MiB asked for" in doctor.huge_pages(inst.config).found
        monkeypatch.setattr(memory, "trial", lambda _: Granted(mapped=8 << 20, huge=6 << 20))
        monkeypatch.setattr(memory, "granted", lambda *_: Granted(mapped=32 << 20, huge=16 << 20))
        found = doctor.huge_pages(inst.config)
        assert "gave 6 MiB of 8 MiB asked for; services have 16 MiB of 32 MiB" in found.found
        monkeypatch.setattr(memory, "trial", lambda _: Granted(mapped=8 << 20))
        live = msgspec.structs.replace(
            inst.config, instance=msgspec.structs.replace(inst.config.instance, mode="live")
        )  # fmt: skip
        assert doctor.huge_pages(live).status == doctor.WARN
        assert "huge=advise" in doctor.huge_pages(live).fix


def test_doctor_lists_what_earlier_boots_left(tmp_path: Path) -> None:
    with instance(tmp_path) as inst:
        assert "none" in doctor.leftovers(inst.config).found
        orphan = inst.config.shm_dir / ".ticks.4194999"
        orphan.touch()
        found = doctor.leftovers(inst.config)
        assert found.status == doctor.WARN
        assert ".ticks.4194999: never finished" in found.found
