"""Layers trained by a cluster: Ray Train's processes, each on a share of every batch.

Ray Train places the processes, joins them (Gloo on CPUs, NCCL on GPUs), and begins them anew when one of them or its node
dies, as many as there is room for then. They go on from the last checkpoint, which an actor beside the driver hands on: the
driver keeps it in the run, as a training on one machine does. So nodes need no disk that they share for that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rehead.cluster.nodes import BESIDE, LEARNING, LOOK_S, ROOM_S, SAME, Cluster, Room, check_here, versions
from rehead.errors import ClusterError, ReheadError, SourceError

if TYPE_CHECKING:
    from rehead.tuning.feed import Feed
    from rehead.tuning.state import State
    from rehead.tuning.train import Training

MOST_DEATHS = 8  # of processes in one training, before it is given up
HALTED_S = 600.0  # of silence at most, when training is to end: for a batch, photos that are watched, and a checkpoint
SAME_FAULTS = 3  # the same error so often is a defect, which beginning anew does not mend
SAVED_EVERY_S = 60.0  # at most this much training is lost with a process


class Log:
    """An actor beside the driver: what the first process says, the last checkpoint, and whether all are to stop."""

    def __init__(self, state: State | None) -> None:
        self._said: list[tuple[Any, ...]] = []
        self._state, self._halted = state, False
        self._faults: Counter[tuple[int, str]] = Counter()
        self.error: ReheadError | None = None
        self.is_over = False

    def say(self, *what: Any) -> None:
        self._said.append(what)

    def save(self, state: State) -> None:
        """A checkpoint; before it everything was said that it holds. The one before need not be kept any more."""
        self._state = state
        self._said = [*(what for what in self._said if what[0] != "save"), ("save", state)]

    def taken(self) -> list[tuple[Any, ...]]:
        """What was said since this was asked last."""
        said, self._said = self._said, []
        return said

    def end(self, state: State | None = None, error: ReheadError | None = None) -> None:
        """Training is over: it ended with a state, or with what cannot be mended by beginning anew."""
        self._state, self.error, self.is_over = state or self._state, error, True

    def ended(self) -> tuple[bool, State | None, ReheadError | None]:
        return self.is_over, self._state, self.error

    def failed(self, rank: int, why: str) -> int:
        """How often this process failed with the same words, or the one that was there before it."""
        self._faults[rank, why] += 1
        return self._faults[rank, why]

    def halt(self) -> None:
        self._halted = True

    def halted(self) -> bool:
        return self._halted


def room_of(cluster: Cluster, device: str) -> Room:
    """A process for each GPU where there are any and the device is not "cpu"; else one for each node, with as many cores as the
    usual node has."""
    if device != "cpu" and (n := sum(node.gpus for node in cluster.nodes)):
        return Room(n, 1, 1)
    usual = sorted(node.cores for node in cluster.nodes)[len(cluster.nodes) // 2]
    return Room(sum(node.cores // usual for node in cluster.nodes), usual, 0)


class Trainer:
    """An actor that runs Ray Train, which cannot be run from outside a cluster."""

    def fit(self, room: Room, settings: dict[str, Any]) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        for name in ("ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="rehead-") as folder:
            TorchTrainer(
                learn,
                train_loop_config=settings,
                scaling_config=ScalingConfig(
                    num_workers=(1, room.n),
                    use_gpu=room.gpus > 0,
                    resources_per_worker={"CPU": room.cores} | ({"GPU": room.gpus} if room.gpus else {}),
                ),
                run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=MOST_DEATHS)),
            ).fit()


def learn(settings: dict[str, Any]) -> None:
    """Runs in each process: the training, from the last checkpoint on."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    from rehead.tuning.together import Group
    from rehead.tuning.train import train_layers

    log, context, place = settings["log"], ray.train.get_context(), get_device()
    if place.type == "cuda":
        torch.cuda.set_device(place)  # a process may see all GPUs of its node
    together = Group(context.get_world_rank(), context.get_world_size())
    is_first = together.rank == 0
    is_over, state, _ = together.first_says(ray.get(log.ended.remote()) if is_first else None)
    if is_over:
        return
    if is_first:
        log.say.remote("here")
    device = str(place)
    talk = _Talk(log) if is_first else _Silence()
    try:
        check_here(*settings["same"])
        training, feeds = ray.get(settings["training"][0])
        training = replace(
            training, device=device, feed=feeds(device), together=together, report=talk.report, save=talk.save,
            due=talk.due, progress=talk.progress, note=talk.note, stop=talk.stop,
        )  # fmt: skip
        if is_first:
            log.say.remote("begin", state, together.n, place.type)
        done = train_layers(training, state)
    except ReheadError as error:
        ray.get(log.end.remote(error=error))
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if ray.get(log.failed.remote(together.rank, why)) >= SAME_FAULTS:
            ended = ClusterError(
                what=f"Training failed {SAME_FAULTS} times in the same way.",
                why=why[:300],
                fix="The last checkpoint is kept. Without --ray the traceback can be seen: --debug.",
            )
            ray.get(log.end.remote(error=ended))
        raise
    if is_first:
        ray.get(log.end.remote(done))


class _Talk:
    """What the first process tells the driver, and asks it."""

    def __init__(self, log: Any) -> None:
        self._log, self._halted = log, False
        self._saved = self._asked = time.monotonic()

    def report(self, facts: dict[str, Any]) -> None:
        self._log.say.remote("report", facts)

    def progress(self, n: int, text: str) -> None:
        self._log.say.remote("progress", n, text)

    def note(self, text: str) -> None:
        self._log.say.remote("note", text)

    def save(self, state: State) -> None:
        import ray

        ray.get(self._log.save.remote(state))
        self._saved = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._saved > SAVED_EVERY_S

    def stop(self) -> bool:
        import ray

        if not self._halted and time.monotonic() - self._asked > LOOK_S:
            self._halted, self._asked = bool(ray.get(self._log.halted.remote())), time.monotonic()
        return self._halted


class _Silence:
    """What the other processes tell: nothing."""

    def report(self, *_: Any) -> None:
        return

    save = note = progress = report

    def due(self) -> bool:
        return False

    stop = due


def train(
    cluster: Cluster,
    training: Training,
    start: State | None,
    feeds: Callable[[str], Feed],
    begin: Callable[..., None],
    device: str,
) -> State:
    """`train_layers` by the cluster: the model has the weights that are kept when it ends. feeds: by the device of a process
    its feed. begin: told the checkpoint that the processes go on from, or None, each time they begin. device: of the nodes.

    Raises what `train_layers` raises, ClusterError where a node cannot read a photo, or none has room before training is to
    end, and Ray's errors where the cluster gives up.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from rehead.tuning.train import end

    room = room_of(cluster, device)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    log = ray.remote(Log).options(num_cpus=0, scheduling_strategy=here).remote(start)
    trainer = ray.remote(Trainer).options(num_cpus=0, scheduling_strategy=here).remote()
    alone: Any = dict.fromkeys(("feed", "report", "save", "due", "progress", "note", "stop"))
    model = training.model.to("cpu")
    shipped = ray.put((replace(training, model=model, **alone), feeds))
    try:
        same = cluster.address, versions((*SAME, *BESIDE, *LEARNING))
        fitting = trainer.fit.remote(room, {"log": log, "training": [shipped], "same": same})
        has_begun = _follow(fitting, log, room, training, begin)
        ended: tuple[bool, State | None, ReheadError | None] = ray.get(log.ended.remote())
        is_over, state, error = ended
        if isinstance(error, SourceError):
            raise ClusterError(
                what="A node cannot read a photo that layers learn from.",
                why=error.why,
                fix="Put them on a disk that the nodes share, or into a bucket; or learn from kept activations: --train last:2",
            )
        if error is not None:
            raise error
        if has_begun:
            ray.get(fitting)  # raises what Ray says
            assert is_over
        elif state is None or not state.history:
            raise ClusterError(
                what="Training was to end before the cluster had begun with it.",
                why=f"It waited for {room.about}.",
                fix="Look at what the cluster does with `ray status`, or leave --ray out; what had arrived is kept.",
            )
        assert state is not None
        end(training.model, state)
        return state
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(trainer)
            ray.kill(log)


def _follow(fitting: Any, log: Any, room: Room, training: Training, begin: Callable[..., None]) -> bool:
    """Passes on what is said until training is over. Whether it is: False where it was to end, and no process did so."""
    import ray

    asked, ends, is_there = time.monotonic(), math.inf, False
    done: list[Any] = []
    while not done:
        done, _ = ray.wait([fitting], timeout=LOOK_S)
        said = ray.get(log.taken.remote())
        for what in said:
            is_there = True
            _told(training, begin, *what)
        if training.stop() and (ends == math.inf or said):
            log.halt.remote()
            ends = time.monotonic() + (HALTED_S if is_there else 0)
        if not is_there and time.monotonic() - asked > ROOM_S:
            training.note(f"The cluster has had no room for {room.about} yet; training waits for it")
            asked = math.inf
        if time.monotonic() > ends and not done:
            return False
    return True


def _told(training: Training, begin: Callable[..., None], what: str, *facts: Any) -> None:
    if what == "here":
        return
    if what == "begin":
        state, n, kind = facts
        where = "" if kind == "cpu" else ", each on a GPU" if n > 1 else " on a GPU"
        training.note((f"{n} processes learn together" if n > 1 else "One process learns") + where)
        begin(state)
    else:
        said: dict[str, Callable[..., None]] = {
            "report": training.report,
            "save": training.save,
            "progress": training.progress,
            "note": training.note,
        }
        said[what](*facts)
