"""A Ray cluster, connected to: one that is begun here, one that runs, or one far away.

Whoever has Ray running in this process already keeps it. Nothing is told to Ray's makers, and Ray's own lines are left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rehead.cluster.nodes import BESIDE, LOCAL, SAME, Cluster, check_same, nodes_there
from rehead.errors import ClusterError, MissingExtra, ReheadError
from rehead.parallel import n_cores

AUTO = "auto"
ANSWER_S = 5.0  # for a first answer of an address, before Ray, which waits for minutes, is told of it
PORTS = {"ray": 10001, "": 6379}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster at an address: "local", begun here and ended with the block; "auto", the one that RAY_ADDRESS names or that
    runs here; "ray://host:10001", from outside; "host:6379", from one of its nodes.

    Raises MissingExtra without Ray, and ClusterError where there is no cluster, where versions differ, or a node lacks rehead.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "ray", f"--ray {address}")
    _check_answers(address)
    with _settings():
        import ray

        is_ours = not ray.is_initialized()
        if is_ours:
            _begin(address)
        try:
            nodes = tuple(nodes_there())
            if not nodes:
                raise ClusterError(
                    what=f"The Ray cluster {address} has no node with a core to use.",
                    fix="Add one to it: ray start --address=HEAD:6379",
                )
            cluster = Cluster(address if is_ours else "the Ray that this program began", nodes)
            check_same(cluster, (*SAME, *BESIDE))
            yield cluster
        finally:
            if is_ours:
                ray.shutdown()


def _begin(address: str) -> None:
    import ray

    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    where = {"num_cpus": n_cores(), "include_dashboard": False} if address == LOCAL else {}
    try:
        with _hushed():
            ray.init(address=address, **where, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _cannot_connect(address, error) from error


def _cannot_connect(address: str, error: Exception) -> ClusterError:
    said = str(error).strip()
    if "ersion mismatch" in said or "ersions mismatch" in said or "Changing the" in said:
        return ClusterError(
            what=f"The Ray cluster {address} runs another version of Ray or of Python than this machine.",
            why=" ".join(said.split()),
            fix="Install the cluster's versions here, or these there: pip install ray==VERSION",
        )
    if "uthenticat" in said or "token" in said.lower():
        return ClusterError(
            what=f"The Ray cluster {address} wants a token that this machine has not.",
            why=said.splitlines()[0],
            fix="Bring the cluster's: `ray get-auth-token` there; here RAY_AUTH_MODE=token, and it in RAY_AUTH_TOKEN.",
        )
    if address == LOCAL and isinstance(error, OSError):
        return ClusterError(
            what="Ray cannot be begun here.",
            why=f"{said}.",
            fix="Name a folder with a short name, that you may write to, in RAY_TMPDIR.",
        )
    if address == AUTO and "RAY_ADDRESS" not in os.environ:
        return _none_here("--ray auto looks for one on this machine, and in RAY_ADDRESS.")
    return ClusterError(
        what=f"The Ray cluster {address} cannot be used.",
        why=said.splitlines()[0] if said else type(error).__name__,
        fix="Look whether it runs: ray status --address=HOST:6379"
        + ("" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token."),
    )


def _none_here(why: str) -> ClusterError:
    return ClusterError(
        what="No Ray cluster runs here.",
        why=why,
        fix="Name one with --ray ray://HOST:10001, begin one with `ray start --head`, or use --ray local.",
    )


def _check_last() -> None:
    """Raises ClusterError where the cluster that Ray has on record here, as the last that was begun, does not answer: one that
    was killed stays on record."""
    if "RAY_ADDRESS" in os.environ:
        return
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        found = Path(folder, "ray", "ray_current_cluster").read_text().strip()
        host, _, port = found.rpartition(":")
        place = host, int(port)
    except (OSError, ValueError):
        return
    try:
        socket.create_connection(place, timeout=ANSWER_S).close()
    except OSError as error:
        why = f"The last one that was begun here, at {found}, does not answer: {error.strerror or error}."
        raise _none_here(why) from error


def _check_answers(address: str) -> None:
    """Raises ClusterError where nobody listens: Ray itself tries for minutes."""
    if address == AUTO:
        _check_last()
    if address in (LOCAL, AUTO):
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(f"{address!r} is no address of a cluster")
        place = parts.hostname, parts.port or PORTS[parts.scheme]
    except ValueError as error:
        raise ClusterError(
            what=f"--ray {address} names no cluster.",
            why=f"{error}.",
            fix="Write --ray local, --ray auto, --ray ray://HOST:10001 or, on one of its nodes, --ray HOST:6379.",
        ) from error
    try:
        socket.create_connection(place, timeout=ANSWER_S).close()
    except OSError as error:
        raise ClusterError(
            what=f"Nobody answers at {place[0]}:{place[1]}.",
            why=f"{error.strerror or error}.",
            fix="Look whether the cluster runs, and whether this machine may reach it. A Ray client's port is 10001.",
        ) from error


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """What ends Ray's work for good is said in our words: those of a task, where it raised one of our errors."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        if isinstance(cause := getattr(error, "cause", None), ReheadError):
            raise cause from error
        told = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        named = [line for line in told if type(getattr(error, "cause", error)).__name__ in line]
        raise ClusterError(
            what="The Ray cluster gave up on the work.",
            why=[*told[:1], *named][-1][:300],
            fix="Look at it with `ray status`, and run the command again: what had arrived is kept.",
        ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing is written to standard error. Ray's C++ code writes there by itself, from then on by the level that it was begun
    with, and says in a line that it does; it warns of how Ray Data begins its actors."""
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    with contextlib.suppress(OSError):  # as on a full disk
        sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """What Ray reads from variables, where they do not say it: no report of usage, and no lines of its own between ours.
    Variables are as they were when the block ends."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning of what a later version will do
        "RAY_task_oom_retries": "2",  # of a cluster begun here; else what takes all memory is begun anew for ever
    }
    os.environ.update(wanted | before)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update(before)
