"""Manifests: which files a backup holds, with sizes and SHA-256. A directory without a manifest is no backup."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.store.files import replace_file, sha256

FILE = "manifest.json"


class Part(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``files`` by relative path; ``links`` are symbolic links with their targets."""

    version: int = 1
    created_wall_ns: int
    instance: str
    mode: str
    journal_rows: int = 0
    fills: int = 0
    files: dict[str, Part] = {}
    links: dict[str, str] = {}


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a backup directory, None if it has none or it can't be read."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def scan(directory: Path) -> tuple[dict[str, Part], dict[str, str]]:
    """Files and links under a directory as a manifest states them."""
    files: dict[str, Part] = {}
    links: dict[str, str] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_file() and name != FILE:
            files[name] = Part(path.stat().st_size, sha256(path))
    return files, links


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest durably; everything else must be in place already."""
    replace_file(directory / FILE, msgspec.json.format(msgspec.json.encode(manifest)))


def differences(directory: Path, manifest: Manifest) -> list[str]:
    """What differs between a directory and its manifest, in words; empty if nothing does."""
    files, links = scan(directory)
    found = []
    for name, part in manifest.files.items():
        if name not in files:
            found.append(f"{name} is missing")
        elif files[name] != part:
            found.append(f"{name} was changed: {files[name].bytes} bytes, sha256 {files[name].sha256[:12]}…")
    found += [f"{name} does not belong there" for name in files if name not in manifest.files]
    found += [
        f"link {name} is missing or points elsewhere" for name, to in manifest.links.items() if links.get(name) != to
    ]
    return found
