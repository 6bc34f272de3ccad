"""The program, run again and again without loading its libraries again: a process that has them forks one for each run.

A run is a process of its own, with its own folder, environment, output and exit code. What libraries read from the
environment while they are loaded it cannot change. Libraries that start threads when they are loaded are left to the run.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = """
import atexit, gc, importlib, json, os, runpy, sys
of_threads = ("pandas", "pyarrow")  # loaded by scikit-learn where they are there
sys.modules.update(dict.fromkeys(of_threads))
for name in ("rehead.run", "rehead.cli.commands", "rehead.tuning.train", "onnx", "sklearn.linear_model"):
    importlib.import_module(name)
for name in of_threads:
    del sys.modules[name]
gc.freeze()
tasks = "/proc/self/task"
assert not os.path.isdir(tasks) or len(os.listdir(tasks)) == 1, "a fork of several threads may wait for ever"
for line in sys.stdin:
    wish = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, path in enumerate([os.devnull, wish["out"], wish["err"]]):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["env"])
    sys.argv = ["rehead", *wish["arguments"]]
    try:
        runpy.run_module("rehead", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        atexit._run_exitfuncs()
        sys.stdout.closed or sys.stdout.flush()
        os._exit(end.code)  # to take libraries down takes longer than most runs
"""


class Forked:
    """A context manager: the process that forks."""

    def __enter__(self) -> Forked:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.communicate()

    def run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives of the program. Raises TimeoutExpired after it was killed."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            out.touch()
            err.touch()
            wish = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(wish).encode() + b"\n")
            child = self._said(None)
            code = self._said(timeout_s)
            if code is None:
                os.kill(child or 0, signal.SIGKILL)
                self._said(None)
                raise subprocess.TimeoutExpired(["rehead", *arguments], timeout_s)
            said, told = (path.read_bytes().decode("utf-8", "surrogateescape") for path in (out, err))
        return subprocess.CompletedProcess(["rehead", *arguments], code, said, told)

    def _said(self, timeout_s: float | None) -> int | None:
        """The next number that the server says, None where it says none in time."""
        assert self._server.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            if not select.select([self._server.stdout], [], [], timeout_s)[0]:
                return None
            if not (more := self._server.stdout.read(1)):
                raise RuntimeError("The process that forks has ended.")
            said += more
        return int(said)
