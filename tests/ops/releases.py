"""Versions of the product to install in tests: the project's own sources, with packages borrowed instead of installed.

``python_for`` makes a Python whose ``-m venv`` links the packages of this environment and whose ``-m pip`` only makes
the command line: no network is there inside the booted machine, and an installation of megabytes is not what is tested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("engine", "shm", "ops", "config", "systemd", "pyproject.toml", "requirements.lock", "requirements-test.lock",
         "README.md", "main.py")  # fmt: skip
_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then exec {real} "$(dirname "$0")/make-venv.py" "$4"; fi
exec {real} "$@"
"""
_MAKER = """
import subprocess, sys
from pathlib import Path
target = Path(sys.argv[1])
subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(target)], check=True)
packages = target / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
(packages / "borrowed.pth").write_text(f"{target.parent}\\n{BORROWED}\\n")
(packages / "pip").mkdir()
(packages / "pip/__init__.py").touch()
(packages / "pip/__main__.py").write_text(
    "import pathlib, sys\\n"
    "program = pathlib.Path(sys.prefix, 'bin/l2dash')\\n"
    "text = f'#!{sys.executable}\\\\nimport sys\\\\n'\\n"
    "program.write_text(text + 'from engine.cli import main\\\\nsys.exit(main())\\\\n')\\n"
    "program.chmod(0o755)\\n"
)
"""


def python_for(directory: Path) -> Path:
    """A Python for L2DASH_PYTHON, see above."""
    directory.mkdir(parents=True, exist_ok=True)
    import numpy

    borrowed = Path(numpy.__file__).resolve().parents[1]
    maker, program = directory / "make-venv.py", directory / "python"
    maker.write_text(f"BORROWED = {str(borrowed)!r}\n{_MAKER}")
    program.write_text(_PYTHON.format(real=sys.executable))
    program.chmod(0o755)
    return program


def version(directory: Path, number: str) -> Path:
    """The sources of a version with this number."""
    directory.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    project = directory / "pyproject.toml"
    text = project.read_text()
    before = next(line for line in text.splitlines() if line.startswith("version = "))
    project.write_text(text.replace(before, f'version = "{number}"', 1))
    return directory


def archive(directory: Path) -> Path:
    """The same as a tar archive with one folder in it."""
    path = directory.with_suffix(".tar.gz")
    subprocess.run(["tar", "-C", str(directory.parent), "-czf", str(path), directory.name], check=True)
    return path


def environment(python: Path, **more: str) -> dict[str, str]:
    dropped = ("L2DASH_", "TRADING_")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | {"L2DASH_PYTHON": str(python), **more}
