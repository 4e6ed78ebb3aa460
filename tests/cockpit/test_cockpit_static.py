"""Front-end files: vendored libraries are what the manifest says, and nothing points outside."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).parents[2] / "engine" / "cockpit" / "static"
VENDOR = STATIC / "vendor"


def test_vendored_files_are_exactly_those_of_the_manifest() -> None:
    manifest = {}
    for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        manifest[name.removeprefix("./")] = digest
    found = {
        p.relative_to(VENDOR).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in VENDOR.rglob("*")
        if p.is_file() and p.name != "SHA256SUMS"
    }
    assert found == manifest


def test_every_vendored_library_has_its_licence() -> None:
    for line in (VENDOR / "VERSIONS").read_text().splitlines():
        name = line.split()[0].split("/")[-1]
        candidates = [VENDOR / "licences" / f"{n}.txt" for n in (name, name.replace("preact-", ""))]
        assert any(p.is_file() and p.stat().st_size > 200 for p in candidates), line


def test_no_page_or_script_of_ours_names_another_origin() -> None:
    for path in STATIC.rglob("*"):
        if path.suffix in (".html", ".js", ".css") and VENDOR not in path.parents:
            text = path.read_text()
            assert not re.search(r"https?://", text), path
            assert 'localStorage.setItem("token' not in text
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=\"|\sstyle=\"", text), f"inline code or style in {path}"


def test_every_import_of_our_modules_exists() -> None:
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r"from\s*\"(\.[^\"]+)\"", path.read_text()):
            assert (path.parent / name).resolve().is_file(), f"{path.name} imports {name}"


def test_text_colours_have_contrast() -> None:
    css = (STATIC / "css" / "app.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})[ ;]", css.split("}")[0]))

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ink in ("text", "muted", "good", "warn", "bad", "up", "down", "accent"):
        for ground in ("bg", "panel", "raised"):
            a, b = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
            assert (a + 0.05) / (b + 0.05) >= 4.5, f"{ink} on {ground}"
