"""The served models by name, and their hot reload: a bundle that is replaced on disk is loaded beside the old one, then
takes its place in one step. What was asked of the old one is answered by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rehead.errors import ReheadError, nearest
from rehead.serving.models import Loaded, Signature, load_named, signature
from rehead.serving.problems import Problem

Told = Callable[[str, Loaded, str], None]


class Shelf:
    """The models, in the order they were named. Any thread may read it; only `watch` changes what stands there."""

    def __init__(self, models: Mapping[str, Loaded]) -> None:
        assert models
        self._models = dict(models)
        self._folders: dict[str, Path] = {name: loaded.folder for name, loaded in models.items()}
        self._seen: dict[str, Signature] = {name: loaded.signature for name, loaded in models.items()}

    def __iter__(self) -> Iterator[Loaded]:
        return iter(list(self._models.values()))

    def named(self, name: str | None) -> Loaded:
        """The model of that name, by default the first. Raises Problem 404, which lists the names."""
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            raise Problem(
                404,
                f"No model is called {name[:100]!r}.",
                why=f"Here are: {', '.join(self._models)}.",
                fix=nearest(name[:100], self._models) or "Pass one of these names as ?model=, or none for the first.",
            )
        return self._models[name]

    def watch(self, told: Told, end: threading.Event, every_s: float) -> None:
        """Looks for changes until `end` is set. told("reloaded" or "stale", model, why): what was found."""
        while not end.wait(every_s):
            for name in list(self._models):
                self._look(name, told)

    def _look(self, name: str, told: Told) -> None:
        found = _signature(self._folders[name])
        if found == self._seen[name]:
            return
        self._seen[name] = found
        try:
            fresh = load_named(name, self._folders[name], self._models[name].variant)
        except Exception as error:  # whatever a library says of such a bundle: the watch goes on, and the others reload
            self._models[name] = self._models[name].gone_stale()
            told("stale", self._models[name], _said(error))
            return
        self._models[name], self._seen[name] = fresh, fresh.signature
        told("reloaded", fresh, "")


def _said(error: Exception) -> str:
    """An error in a line; with its kind where it is none of those that say by themselves what happened."""
    words = " ".join(str(error).split())
    return words if isinstance(error, (ReheadError, OSError)) else f"{type(error).__name__}: {words}"


def _signature(folder: Path) -> Signature:
    try:
        return signature(folder)
    except OSError:  # it is gone, or changes while it is looked at
        return ()
