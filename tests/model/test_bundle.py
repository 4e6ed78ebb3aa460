"""Bundles and the registry: damage is named, promotion is atomic, a restore by copying works."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from model_parts import known_model

from engine.market.layout import FEATURE_SCHEMA
from engine.model.bundle import ModelCorrupt, ModelMissing, Registry, SchemaMismatch, read, write
from engine.model.params import ModelInvalid


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    r = Registry(tmp_path / "models")
    for n in range(3):
        r.add(known_model(seed=n + 1))
    r.promote(1)
    return r


def test_a_model_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    model = replace(known_model(version=4), created_wall_ns=17, window="2024-01-02", metrics={"a": [1, 2.5]})
    write(tmp_path / "m.npz", model)
    found = read(tmp_path / "m.npz", FEATURE_SCHEMA)
    for field in fields(model):
        np.testing.assert_equal(getattr(found, field.name), getattr(model, field.name))


def test_damage_anywhere_in_a_bundle_is_noticed_or_harmless(tmp_path: Path) -> None:
    write(tmp_path / "m.npz", known_model())
    whole, harmless = (tmp_path / "m.npz").read_bytes(), 0
    for at in range(100, len(whole) - 100, len(whole) // 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "d.npz").write_bytes(damaged)
        with suppress(ModelCorrupt):  # a byte that means nothing (padding of the archive) may be anything
            assert (read(tmp_path / "d.npz").means == known_model().means).all()
            harmless += 1
    assert harmless < 10


@pytest.mark.parametrize("keep", [0, 1, 100, 2_000])
def test_a_truncated_bundle_is_named(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "m.npz", known_model())
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:keep])
    with pytest.raises(ModelCorrupt, match=r"m\.npz"):
        read(tmp_path / "m.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", means=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelCorrupt):
        read(tmp_path / "m.npz")


def test_a_model_of_other_features_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "m.npz", replace(known_model(), schema="0:ofi"))
    with pytest.raises(SchemaMismatch, match="0:ofi"):
        read(tmp_path / "m.npz", FEATURE_SCHEMA)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transmat", np.ones((3, 3))),
        ("startprob", np.array([1.0, np.nan, 0.0])),
        ("scale", np.zeros(6)),
        ("covars", np.zeros((3, 6, 6))),
        ("means", np.zeros((3, 5))),
        ("loglik_floor", float("nan")),
    ],
)
def test_arrays_that_are_no_model_are_refused_before_they_are_written(
    tmp_path: Path, field: str, value: object
) -> None:
    with pytest.raises(ModelInvalid):
        write(tmp_path / "m.npz", replace(known_model(), **{field: value}))
    assert not (tmp_path / "m.npz").exists()


def test_promote_and_rollback_move_the_current_link_and_keep_the_previous(registry: Registry) -> None:
    registry.promote(3)
    assert (registry.current, registry.previous) == (3, 1)
    assert registry.load().version == 3
    assert registry.rollback() == 1
    assert (registry.current, registry.previous) == (1, 3)


def test_a_corrupt_candidate_is_not_promoted_and_the_current_one_serves_on(registry: Registry) -> None:
    registry.path(2).write_bytes(b"no model")
    with pytest.raises(ModelCorrupt, match="model-000002"):
        registry.promote(2)
    assert registry.load().version == 1


def test_the_list_shows_every_version_and_what_is_wrong_with_it(registry: Registry) -> None:
    registry.path(2).write_bytes(b"no model")
    entries = registry.list()
    assert [e.version for e in entries] == [3, 2, 1]
    assert [e.current for e in entries] == [False, False, True]
    assert "model-000002" in entries[1].error
    assert entries[0].provenance == "synthetic"


def test_an_empty_directory_says_how_to_get_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="l2dash retrain"):
        Registry(tmp_path / "nothing").load()


@pytest.mark.parametrize("follow", [True, False])
def test_a_backup_copied_into_the_models_folder_is_taken_over(registry: Registry, tmp_path: Path, follow: bool) -> None:
    registry.promote(2)
    here = tmp_path / "restored" / "models"
    here.mkdir(parents=True)
    shutil.copytree(registry.directory, here / "models", symlinks=not follow)
    restored = Registry(here)
    restored.import_copies()
    assert restored.versions() == [1, 2, 3]
    assert restored.current == 2
    assert restored.load().version == 2
    assert not (here / "models").exists()


def test_copied_contents_with_links_followed_are_taken_over(registry: Registry, tmp_path: Path) -> None:
    registry.promote(3)
    here = tmp_path / "restored"
    shutil.copytree(registry.directory, here, symlinks=False)
    restored = Registry(here)
    restored.import_copies()
    assert (restored.current, restored.previous) == (3, 1)
    assert (here / "current").is_symlink()
