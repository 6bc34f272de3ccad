"""What the steps of a job share, whatever learns: the photos, where features are kept, who is told, and when to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rehead.data.catalog import Catalog
from rehead.progress import Clock, Progress, Silent, Titled


@dataclass(frozen=True)
class Job:
    """cache: the folder of exported networks and features. clock: of the whole job. stop: asked while photos are
    extracted and layers train; once true the step under way ends with what it has.
    """

    catalog: Catalog
    cache: Path
    progress: Progress = field(default_factory=Silent)
    clock: Clock = field(default_factory=Clock)
    stop: Callable[[], bool] = lambda: False

    def titled(self, title: str) -> Job:
        """The same, where what is told begins with a title."""
        return replace(self, progress=Titled(title, self.progress))
