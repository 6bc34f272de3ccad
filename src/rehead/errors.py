"""The tree of what can go wrong. Each error says what happened, why, and what to do next.

ReheadError                exit code 2: something the user can mend
├── SourceError            the folder, manifest, archive or table cannot be used
│   ├── NothingThere       a folder that has no photos, or none whose labels can be told
│   ├── UnsafeArchive      an archive that climbs out of its folder, or unpacks to far too much
│   └── TooManyBad         more photos cannot be read than --max-bad allows
├── PhotoError             one photo cannot be read: skipped and listed, never stops a job
├── SplitError             no honest split can be made of these photos
├── BackboneError          a backbone or its weights cannot be had
│   ├── UnknownBackbone
│   ├── UnknownLayer
│   ├── WeightsUnavailable
│   ├── WeightsMismatch
│   └── UnsafeWeights
├── EngineError            an engine is missing or disagrees with the reference
├── StoreError             the feature store cannot be used
│   └── DiskFull
├── RecipeError            a setting that is out of range or of the wrong kind
├── ClusterError           a Ray cluster cannot be had, or its nodes differ from this machine
├── RunError               a run cannot start, or has nothing to stand on
│   └── Diverged           a loss or a weight is no number any more
├── BundleError            a bundle is incomplete, changed or newer than this program
│   ├── WorseVariant       an exported form is right less often than the model it was made from
│   └── UnjudgedVariant    no held-out photo says how an exported form compares with it
├── MissingExtra           an optional library is not installed
└── Defect                 exit code 1: a promise of ours does not hold
"""

from __future__ import annotations

import contextlib
import difflib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class ReheadError(Exception):
    """what: the fact, one sentence. why: the cause, if known. fix: the next step, if there is one."""

    exit_code = 2

    def __init__(self, *, what: str, why: str = "", fix: str = "") -> None:
        super().__init__("\n".join(part for part in (what, why, fix) if part))
        self.what, self.why, self.fix = what, why, fix

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.why, self.fix)


def _rebuild(kind: type[ReheadError], what: str, why: str, fix: str) -> ReheadError:
    error = kind.__new__(kind)
    ReheadError.__init__(error, what=what, why=why, fix=fix)
    return error


def nearest(name: str, names: Iterable[str]) -> str:
    """'Did you mean 'x'?' for the nearest of `names`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3, cutoff=0.51)  # "auto" is half of "fast"
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def command(*words: object) -> str:
    """What a shell runs as `rehead` with these words: "rehead tune --resume 'my run'"."""
    return shlex.join(["rehead", *map(str, words)])


def escaped(text: str) -> str:
    """Text that can be written anywhere: a path's bytes that are no UTF-8 (PEP 383) and half a surrogate pair are escapes."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character of UTF-16, as JSON can name it: "\\ud800"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(n: int, noun: str) -> str:
    """'1 photo', '2 photos', '2 classes', '3 copies'."""
    if n == 1:
        return f"{n} {noun}"
    stem, end = (noun[:-1], "ies") if noun.endswith("y") else (noun, "es" if noun.endswith("s") else "s")
    return f"{n} {stem}{end}"


class SourceError(ReheadError): ...


class NothingThere(SourceError): ...


class UnsafeArchive(SourceError): ...


class TooManyBad(SourceError):
    """skips: what could not be read so far, each with a path and a reason."""

    skips: Sequence[Any] = ()


class PhotoError(ReheadError): ...


class SplitError(ReheadError): ...


class BackboneError(ReheadError): ...


class UnknownBackbone(BackboneError): ...


class UnknownLayer(BackboneError): ...


class WeightsUnavailable(BackboneError): ...


class WeightsMismatch(BackboneError): ...


class UnsafeWeights(BackboneError): ...


class EngineError(ReheadError): ...


class StoreError(ReheadError): ...


class DiskFull(StoreError): ...


class RecipeError(ReheadError): ...


class ClusterError(ReheadError): ...


class RunError(ReheadError): ...


class Diverged(RunError):
    """where: what is no number, and at which step. lr: the learning rate there. fix: what to do next."""

    def __init__(self, where: str, lr: float, fix: str = "") -> None:
        super().__init__(
            what=where,
            why=f"The learning rate there was {lr:g}; weights have grown without bound.",
            fix=fix or "Try a tenth of the learning rate: --lr, or lr=.",
        )
        self.lr = lr

    def __reduce__(self) -> tuple[object, ...]:
        return Diverged, (self.what, self.lr, self.fix)


class BundleError(ReheadError): ...


class WorseVariant(BundleError):
    """measured: what held-out photos say of both. name: of the form."""

    def __init__(self, name: str, measured: Any) -> None:
        self.name, self.measured = name, measured
        points = -100 * measured.difference.value
        super().__init__(
            what=f"The export is worse: its {measured.metric} is {points:.1f} points lower on {counted(measured.n, 'photo')}.",
            why="Nothing was added: a drop of more than one point has to be asked for.",
            fix=f"Take it all the same with --force, or choose another form than {name}.",
        )


class UnjudgedVariant(BundleError):
    """measured, name: as in WorseVariant."""

    def __init__(self, name: str, measured: Any) -> None:
        self.name, self.measured = name, measured
        metric = measured.metric
        takes = "numbers that differ" if metric == "R2" else "photos that show a label"
        super().__init__(
            what=f"The export cannot be judged: its {metric} is not defined on {counted(measured.n, 'photo')}.",
            why=f"{metric} takes {takes}. Nothing was added.",
            fix="Name other labelled photos: --photos DIR, or take it all the same with --force.",
        )


class MissingExtra(ReheadError):
    """library: what `import` asks for; extra: which extra of ours brings it; purpose: what it is needed for; otherwise: what
    does without it, behind how it is installed."""

    def __init__(self, library: str, extra: str, purpose: str, otherwise: str = "") -> None:
        fix = f'Install it with: pip install "rehead[{extra}]"'
        if extra == "head":
            fix = (
                'Install it with: pip install "rehead[head]", which suffices to tune a head, or all of "rehead[tune]".'
            )
        super().__init__(what=f"{purpose} needs the library {library!r}, which is not installed.", fix=fix + otherwise)


LIGHT = ("sklearn", "scipy", "lmdb", "onnx", "blake3", "threadpoolctl", "tomli_w", "filelock")
EXTRA_BY_LIBRARY = {
    **dict.fromkeys(LIGHT, "head"),
    **dict.fromkeys(
        ("torch", "torchvision", "timm", "matplotlib", "cleanlab", "captum", "jinja2", "markupsafe"), "tune"
    ),
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client", "python_multipart", "starlette"), "serve"),
}


@contextlib.contextmanager
def missing_extras() -> Iterator[None]:
    """Where a library of an extra is not found in the block, MissingExtra is raised instead, which says what brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        extra = EXTRA_BY_LIBRARY.get(library)
        if extra is None:
            raise
        raise MissingExtra(library, extra, "This") from error


class Defect(ReheadError):
    exit_code = 1
