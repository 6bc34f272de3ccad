"""What a person types, understood: times, arguments for a backbone, Ctrl-C."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from rehead.errors import RecipeError, SourceError

KEPT = "What was computed is kept, and not computed again."
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
USUAL_UNIT = {"older-than": "d"}  # what is most likely meant where none is given; elsewhere minutes


def as_seconds(text: str | None, option: str) -> float | None:
    """'90s', '2m', '1.5h' or '30d' in seconds. Raises RecipeError for anything else, a number without a unit included."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if match is None:
        raise RecipeError(
            what=f"--{option} {text!r} is no length of time.", fix=f"For example: --{option} 2m (or s, h, d)"
        )
    if not match[2]:
        n = match[1]
        raise RecipeError(
            what=f"--{option} {n} does not say whether seconds, minutes, hours or days are meant.",
            fix=f"Write {n}s, {n}m, {n}h or {n}d, such as --{option} {n}{USUAL_UNIT.get(option, 'm')}.",
        )
    return float(match[1]) * SECONDS[match[2]]


def as_bytes(size: float) -> str:
    """A number of bytes for people: '17.3 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_rate(text: str | None) -> float | str | None:
    """'0.001' as a number, 'auto' as it is. Raises RecipeError for anything else."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise RecipeError(what=f"--lr {text!r} is no number.", fix="For example: --lr 0.001, or --lr auto") from None


def backbone_arguments(texts: Sequence[str], of: str = "") -> dict[str, Any]:
    """'pad_type=same', 'mean=0.5' -> values by name. of: what stood before each. Raises RecipeError where there is no '='."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise RecipeError(
                what=f"--backbone-arg {of + text!r} has no NAME=VALUE.",
                fix=f"For example: --backbone-arg {of}pad_type=same",
            )
        values[name.strip()] = _value(value.strip())
    return values


def named(photos: str | None) -> str | None:
    """The name of a source of photos as it is. Raises SourceError where it is empty: that would be the current folder."""
    if photos is not None and not photos.strip():
        raise SourceError(
            what="The folder of photos has an empty name.",
            fix="Name a folder of labelled photos; the current one is `.`",
        )
    return photos


def not_empty(text: str | None, option: str) -> str | None:
    """The value of an option as it is. Raises RecipeError where it is empty, as a variable of a script may be."""
    if text is not None and not text.strip():
        raise RecipeError(what=f"--{option} has an empty name.", fix=f"Name one, or leave --{option} out.")
    return text


def check_apart(context: Any, option: str, names: Sequence[str], why: str) -> None:
    """Raises RecipeError where one of these parameters was typed together with an option to which it says nothing."""
    sources = {name: context.get_parameter_source(name) for name in names}
    typed = [f"--{name.replace('_', '-')}" for name, source in sources.items() if source.name == "COMMANDLINE"]
    if typed:
        fix = f"Leave {'it' if len(typed) == 1 else 'them'} out, or {option}."
        raise RecipeError(what=f"{option} goes without {' and '.join(typed)}.", why=why, fix=fix)


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part.strip()) for part in text.split(","))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Interrupt:
    """Asked, as a function, whether extraction is to stop. The first Ctrl-C during extraction says yes; any other aborts. Of
    a job that asked it is said then that what was computed is kept."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._listening = self._stopped = False
        self._before: Any = None

    def __call__(self) -> bool:
        self._listening = True
        return self._stopped

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # the job ends anyway; a hasty Ctrl-C must not tear its last words
            if self._listening and isinstance(exception[1], KeyboardInterrupt):
                self._progress.note(KEPT)
            self._progress.close()
        elif self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped or not self._listening:
            raise KeyboardInterrupt
        self._stopped = True
        self._progress.note("Stopping: the job goes on with what is there, to its end. Ctrl-C again aborts.")
