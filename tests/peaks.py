"""How much memory a picture takes until it is small, in a process of its own: what libraries in C take is counted too."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

needs_status = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not say how much memory was taken"
)
CODE = """if True:
    import re, sys
    from pathlib import Path
    from rehead.auditing.facts import facts_of
    from rehead.pixels import Preprocess, prepare

    def highest():
        return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

    plain = Preprocess(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    look = {"prepare": lambda data: prepare(data, plain), "facts": facts_of}[sys.argv[1]]
    small, large = [Path(name).read_bytes() for name in sys.argv[2:]]
    look(small)
    before = highest()
    look(large)
    print(highest() - before)
"""


def peak_bytes(picture: bytes, kind: str, folder: Path, look: str = "prepare") -> int:
    """What `prepare`, or the audit's look for "facts", takes at its highest. kind: Pillow's name of the format, whose library
    is loaded before."""
    with io.BytesIO() as file:
        Image.new("RGB", (40, 40)).save(file, kind)
        (folder / "small").write_bytes(file.getvalue())
    (folder / "large").write_bytes(picture)
    words = [sys.executable, "-c", CODE, look, str(folder / "small"), str(folder / "large")]
    return int(subprocess.run(words, capture_output=True, check=True).stdout)
