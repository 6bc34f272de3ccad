"""What the steps of a job share, whatever learns: the photos, where features are kept, who is told, and when to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rehead.data.catalog import Catalog
from rehead.data.far import Readers
from rehead.errors import ClusterError
from rehead.features.engines import Engine, Prefix, resolve
from rehead.features.extract import Compute
from rehead.features.shared import Shared
from rehead.progress import Clock, Progress, Silent, Titled

if TYPE_CHECKING:
    from rehead.tuning.feed import Feed
    from rehead.tuning.state import State
    from rehead.tuning.train import Training


class Machines(Readers, Protocol):
    """Other machines that read photos and compute features. about: who they are, such as "2 nodes, 16 cores (ray://head:10001)".
    Devices are theirs: "cpu", "cuda", or "auto" for the best that they have."""

    about: str

    def check(self, device: str, with_torch: bool) -> None:
        """Raises ClusterError where they have no such device, or would do with PyTorch what this machine would not."""

    def engine(self, prefix: Prefix, device: str, cores: int | None = None) -> Engine:
        """PyTorch on one of these machines, for a few photos."""

    def compute(
        self, catalog: Catalog, positions: Sequence[int], prefix: Prefix, engine: str, device: str, view: str
    ) -> Compute:
        """Features of these photos, of which each that they cannot read is sent to them. view: see `features/views.py`."""

    def train(
        self,
        training: Training,
        start: State | None,
        feeds: Callable[[str], Feed],
        begin: Callable[[State | None], None],
        device: str,
    ) -> State:
        """`train_layers` by these machines. feeds: a feed, by the device that learns. begin: told the checkpoint that they
        begin from, each time they do."""


WORTH_BEGINNING = 5e12  # multiplications of a training: two minutes of two cores; a cluster takes 20 s to begin
# Photos of a batch. With fewer, processes on CPUs would send gradients for longer than they compute them: by calculation, for a
# link of 10 Gbit/s and the 0.13 ms a photo that a core takes for 1.5 million weights.
LEAST_SHARED = 256


@dataclass(frozen=True)
class Job:
    """cache: the folder of exported networks and features. clock: of the whole job. stop: whether somebody asked the job to
    end with what it has. is_late: whether the time it was given is gone. Asked while photos are extracted and layers train.
    machines: who computes features and trains layers, None for this machine. shared: features that machines share, None where
    none are. looks: whether photos are looked at for a report in the end.
    """

    catalog: Catalog
    cache: Path
    progress: Progress = field(default_factory=Silent)
    clock: Clock = field(default_factory=Clock)
    stop: Callable[[], bool] = lambda: False
    is_late: Callable[[], bool] = lambda: False
    machines: Machines | None = None
    shared: Shared | None = None
    looks: bool = False

    def ends(self) -> bool:
        """Whether what is under way is to end with what it has."""
        return self.stop() or self.is_late()

    def device(self, asked: str) -> str:
        """The device of this machine that PyTorch is to use. asked: that of the recipe, which is other machines' where there
        are any."""
        return resolve("torch", "auto" if self.machines is not None and asked != "cpu" else asked)[1]

    def own_device(self, asked: str) -> str:
        """The same, where what was asked for need not be here: of a run that was made elsewhere."""
        return self.device("auto" if asked != "cpu" else asked)

    def served(self) -> Job:
        """The same, where a wish to stop that was made by now is fulfilled: what comes next is done whole."""
        return replace(self, stop=lambda: False) if self.stop() else self

    def titled(self, title: str) -> Job:
        """The same, where what is told begins with a title."""
        return replace(self, progress=Titled(title, self.progress))


def trained_dense(job: Job, device: str, training: Training) -> State:
    """`train_layers` for dense layers on features, by the job's machines where that is worth their beginning and they have what
    it takes. device: that of the recipe."""
    from rehead.tuning.train import train_layers

    training = replace(training, stop=job.served().stop)
    if job.machines is None or not _is_worth_it(training, device):
        return train_layers(training)
    try:
        job.machines.check(device, with_torch=True)
    except ClusterError as error:
        job.progress.note(f"The head learns here: {error.what}")
        return train_layers(training)
    return job.machines.train(training, None, partial(as_it_is, training.feed), lambda _: None, device)


def _is_worth_it(training: Training, device: str) -> bool:
    """Whether a cluster is worth its beginning. device: of its nodes."""
    from rehead.tuning.mlp import FeatureFeed

    course, feed = training.course, training.feed
    n_weights = sum(parameter.numel() for parameter in training.model.parameters())
    is_long = 3 * n_weights * len(training.learn) * course.epochs >= WORTH_BEGINNING
    is_faster_there = training.device == "cpu" and (device == "cuda" or course.batch_size >= LEAST_SHARED)
    stays = isinstance(feed, FeatureFeed) and feed.is_on_disk  # it would have to fit into the memory of each
    return is_long and is_faster_there and not stays


def as_it_is(feed: Feed, _: str) -> Feed:
    """Features, and activations, are the same for every device."""
    return feed
