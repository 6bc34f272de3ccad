"""What this machine and this checkout are, and the folder of results: figures of two machines are never in one file."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from rehead.parallel import n_cores

RESULTS = Path(__file__).parent / "results"
# By which times of processors of one name differ.
WIDE = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")


def results_here() -> Path:
    """The folder of this machine's results, such as results/amd-epyc-2-cores-bfloat16."""
    return RESULTS / machine_name(processor(), n_cores(), instructions())


def machine_name(name: str, cores: int, flags: list[str]) -> str:
    """Of a folder: processors of one name may have other cores, and other ways to multiply, so both are in it."""
    return f"{slug(name)}-{cores}-cores{'-bfloat16' if 'avx512_bf16' in flags else ''}"


def commit() -> str:
    """Of this checkout, "" without git."""
    git = shutil.which("git")
    said = [git, "rev-parse", "--short", "HEAD"] if git else None
    return subprocess.run(said, capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip() if said else ""


def slug(name: str) -> str:
    """ "Intel(R) Xeon(R) Processor" as "intel-xeon-processor"."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower().replace("(r)", "").replace("(tm)", "")))


def processor() -> str:
    """As Linux names the first core; elsewhere its kind."""
    return next(iter(_of_first_core("model name")), platform.machine())


def instructions() -> list[str]:
    """Those of WIDE that the first core has; none elsewhere than on Linux."""
    flags = {flag for line in _of_first_core("flags")[:1] for flag in line.split()}
    return [name for name in WIDE if name in flags]


def _of_first_core(key: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key]
