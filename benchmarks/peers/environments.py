"""An environment for each peer, from its requirements.txt, built by uv; files that several hold are hard links to one.

The index is the one that pip of this machine uses: its configuration is read when an environment is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from places import ROOT, SOURCES

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DONE = "built-from.txt"  # in an environment: the digest of what it was built from
OPTIONS = {"index-url": "--default-index", "extra-index-url": "--index", "find-links": "--find-links"}
NAMED = ("torch", "torchvision", "timm", "numpy", "onnxruntime")  # told of every environment beside its own tools


def build(folder: Path, requirements: Path) -> None:
    """The environment at `folder` holds what `requirements` names; one that does already is left alone."""
    wanted = _digest(requirements)
    stamp = folder / DONE
    if stamp.is_file() and stamp.read_text() == wanted and (folder / "bin" / "python").exists():
        return
    print(f"building {folder.name} from {requirements.relative_to(ROOT)}", flush=True)
    uv = find_uv()
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([uv, "venv", "--quiet", "--python", PYTHON, str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--link-mode", "hardlink"]
    install += ["--compile-bytecode"]  # nobody pays for that while measured
    install += ["--refresh-package", "rehead"]  # else an older wheel: of a checkout uv looks at pyproject.toml alone
    environment = {**os.environ, "REHEAD_CHECKOUT": str(ROOT)}
    subprocess.run([*install, *pip_options(), "-r", str(requirements)], check=True, env=environment)
    stamp.write_text(wanted)


def convert(folder: Path, program: Path, weights: Path) -> None:
    """Runs a peer's convert.py once, by its own interpreter: it writes the weights in the tool's form, beside those of all."""
    stamp = folder / "converted-by.txt"
    wanted = hashlib.sha256(program.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"converting weights by {program.relative_to(ROOT)}", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(folder / "bin" / "python"), str(program), str(weights)], check=True, env=environment)
    stamp.write_text(wanted)


def find_uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise SystemExit("uv builds the environments of the peers: pip install uv")
    return found


def pip_options() -> list[str]:
    """What pip's configuration says of indexes, as options of uv; like pip, the best of all indexes is taken."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    options: dict[tuple[str, str], None] = {}  # pip tells a setting once for each place that makes it
    for line in lines:
        name, _, value = line.partition("=")
        option = OPTIONS.get(name.split(".", 1)[-1].strip("."))
        for word in value.strip("'\"").replace("\\n", " ").split() if option else ():
            options[(str(option), word)] = None
    return [part for pair in options for part in pair] + ["--index-strategy", "unsafe-best-match"]


def size_bytes(folder: Path) -> int:
    """What the files of a folder take by their own length; a hard link counts as a file."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def versions(python: Path, tools: list[str]) -> dict[str, str]:
    """The versions of Python, of `tools` and of what most of them stand on, as that interpreter finds them."""
    code = (
        "import json, platform, sys\nfrom importlib import metadata as m\n"
        "there = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({'python': platform.python_version(), **{n: there[n] for n in sys.argv[1:] if n in there}}))"
    )
    names = list(dict.fromkeys([*tools, *NAMED]))
    answer = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(answer))


def required(requirements: Path) -> list[str]:
    """The names that a requirements.txt asks for, without extras and versions."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text().splitlines()]
    names = [line.replace("[", "=").replace(" ", "=").replace("@", "=").split("=")[0] for line in lines]
    return [name.lower().replace("_", "-") for name in names if name and not name.startswith("-")]


def _digest(requirements: Path) -> str:
    """Of the requirements, and of the sources where they ask for this checkout."""
    whole = hashlib.sha256(requirements.read_bytes())
    if "REHEAD_CHECKOUT" in requirements.read_text():
        for path in [ROOT / "pyproject.toml", *sorted(SOURCES.rglob("*.py"))]:
            whole.update(path.read_bytes())
    return whole.hexdigest()
