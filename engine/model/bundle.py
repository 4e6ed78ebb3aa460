"""Models on disk: one checksummed npz file per version, a ``current`` link, the previous one kept for rollback.

No pickle anywhere. A version file never changes once written; promotion and rollback only move links, each by an
atomic rename, so a reader sees either the old or the new model, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.model.params import Model, ModelInvalid, schema_hash

FORMAT = 1
_NAME = re.compile(r"model-(\d{6})\.npz$")
_ARRAYS = ("startprob", "transmat", "means", "covars", "shift", "scale", "psi_edges", "psi_shares")


class BundleError(Exception):
    """A model can't be had; the text names the file, what is wrong and the remedy."""


class ModelMissing(BundleError):
    """There is no (such) model."""


class ModelCorrupt(BundleError):
    """A bundle is damaged, foreign or of another format."""


class SchemaMismatch(BundleError):
    """The model was fitted on other features than this program computes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``l2dash models list``."""

    version: int
    path: Path
    current: bool
    previous: bool
    provenance: str
    created_wall_ns: int
    metrics: dict[str, Any]
    error: str = ""


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        if name != "checksum":
            value = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}:{value.dtype.str}:{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def write(path: Path, model: Model) -> None:
    """Write one bundle durably: temporary file, fsync, rename, fsync of the directory."""
    model.check()
    arrays: dict[str, Any] = {name: np.asarray(getattr(model, name), np.float64) for name in _ARRAYS}
    arrays |= {
        "format": np.array(FORMAT),
        "version": np.array(model.version),
        "loglik_floor": np.array(model.loglik_floor),
        "bar_s": np.array(model.bar_s),
        "created_wall_ns": np.array(model.created_wall_ns),
        "schema": np.array(model.schema),
        "schema_hash": np.array(schema_hash(model.schema)),
        "provenance": np.array(model.provenance),
        "window": np.array(model.window),
        "metrics": np.array(json.dumps(model.metrics, sort_keys=True)),
    }
    arrays["checksum"] = np.array(_digest(arrays))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def read(path: Path, schema: str = "") -> Model:
    """Read and verify one bundle. ``schema`` (if given) must be the model's.

    Raises ModelMissing, ModelCorrupt, SchemaMismatch.
    """
    remedy = "choose another with `l2dash models rollback` or make a new one with `l2dash retrain`"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise ModelMissing(f"model {path.name}: no such file in {path.parent}; {remedy}") from error
    except Exception as error:  # a damaged archive raises almost anything, from its parser, its codecs or numpy
        raise ModelCorrupt(f"model {path.name}: not readable ({error}); {remedy}") from error
    if "checksum" not in arrays or str(arrays["checksum"]) != _digest(arrays):
        raise ModelCorrupt(f"model {path.name}: checksum does not match its contents; {remedy}")
    if int(arrays.get("format", -1)) != FORMAT:
        raise ModelCorrupt(f"model {path.name}: format {arrays.get('format')}, this program reads {FORMAT}; {remedy}")
    if schema and str(arrays["schema_hash"]) != schema_hash(schema):
        raise SchemaMismatch(
            f"model {path.name}: fitted on features {arrays['schema']}, this program has {schema}; {remedy}"
        )
    try:
        model = Model(
            **{name: arrays[name] for name in _ARRAYS},
            loglik_floor=float(arrays["loglik_floor"]),
            schema=str(arrays["schema"]),
            provenance=str(arrays["provenance"]),
            bar_s=float(arrays["bar_s"]),
            version=int(arrays["version"]),
            created_wall_ns=int(arrays["created_wall_ns"]),
            window=str(arrays["window"]),
            metrics=json.loads(str(arrays["metrics"])),
        )
        model.check()
    except (KeyError, ValueError, ModelInvalid) as error:
        raise ModelCorrupt(f"model {path.name}: {error}; {remedy}") from error
    return model


class Registry:
    """The model directory (``state_dir/models``)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, version: int) -> Path:
        return self.directory / f"model-{version:06d}.npz"

    def versions(self) -> list[int]:
        """Every version there is a file of, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(m.group(1)) for p in self.directory.iterdir() if (m := _NAME.match(p.name)))

    def _linked(self, link: str) -> int | None:
        path = self.directory / link
        if path.is_symlink():
            match = _NAME.search(os.readlink(path))
            return int(match.group(1)) if match else None
        return None

    @property
    def current(self) -> int | None:
        """Version that serves, None if there is none."""
        return self._linked("current")

    @property
    def previous(self) -> int | None:
        """Version that ``rollback`` returns to, None if there is none."""
        return self._linked("previous")

    def load(self, version: int = 0, schema: str = "") -> Model:
        """A version, 0 for the current one. Raises ModelMissing, ModelCorrupt, SchemaMismatch."""
        if not version:
            linked = self.current
            if linked is None:
                raise ModelMissing(f"make one with `l2dash retrain`: no current model in {self.directory}")
            version = linked
        return read(self.path(version), schema)

    def add(self, model: Model) -> Model:
        """Store a model under the next version number; it does not serve before ``promote``. Returns it numbered."""
        self.directory.mkdir(parents=True, exist_ok=True)
        version = max(self.versions(), default=0) + 1
        numbered = replace(model, version=version, created_wall_ns=model.created_wall_ns or time.time_ns())
        write(self.path(version), numbered)
        return numbered

    def promote(self, version: int) -> None:
        """Let a version serve; the one before it becomes ``previous``. Raises BundleError if it can't be read."""
        self.load(version)
        before = self.current
        if before == version:
            return
        if before is not None:
            self._link("previous", before)
        self._link("current", version)

    def rollback(self) -> int:
        """Return to the previous version; returns it. Raises ModelMissing if there is none."""
        before = self.previous
        if before is None:
            raise ModelMissing(f"no previous model in {self.directory}; promote one: l2dash models promote VERSION")
        self.promote(before)
        return before

    def list(self) -> list[Entry]:
        """Every version, newest first; an unreadable one carries its error."""
        entries = []
        for version in reversed(self.versions()):
            current, previous = version == self.current, version == self.previous
            try:
                m = self.load(version)
                entries.append(
                    Entry(version, self.path(version), current, previous, m.provenance, m.created_wall_ns, m.metrics)
                )
            except BundleError as error:
                entries.append(Entry(version, self.path(version), current, previous, "", 0, {}, str(error)))
        return entries

    def import_copies(self) -> tuple[int, ...]:
        """Adopt what a restore by ``cp`` left behind; returns the versions adopted.

        ``cp -r`` of a backup's ``models`` folder into this one makes ``models/models``; a ``cp`` that follows links
        makes ``current`` a file. Both are taken over; a file that exists already is not replaced.
        """
        adopted = []
        nested = self.directory / "models"
        if nested.is_dir() and not nested.is_symlink():
            for path in sorted(nested.iterdir()):
                match = _NAME.match(path.name)
                if match and not (self.directory / path.name).exists():
                    shutil.copy2(path, self.directory / path.name)
                    adopted.append(int(match.group(1)))
            inner = Registry(nested)
            serving = inner.current
            if serving is None and (nested / "current").is_file():
                serving = self._adopt_file(nested / "current")
            if serving is not None and self.path(serving).exists():
                with contextlib.suppress(BundleError):
                    self.promote(serving)
            shutil.rmtree(nested)
        for link in ("previous", "current"):
            path = self.directory / link
            if path.is_file() and not path.is_symlink():
                version = self._adopt_file(path)
                if version is not None:
                    path.unlink()
                    self._link(link, version)
                    adopted.append(version)
        return tuple(adopted)

    def _adopt_file(self, path: Path) -> int | None:
        try:
            model = read(path)
        except BundleError:
            return None
        if not self.path(model.version).exists():
            shutil.copy2(path, self.path(model.version))
        return model.version

    def _link(self, link: str, version: int) -> None:
        temporary = self.directory / f".{link}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(self.path(version).name)
        temporary.replace(self.directory / link)
        _sync(self.directory)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
