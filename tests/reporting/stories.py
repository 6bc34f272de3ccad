"""Stories made up for tests: photos as JPEG bytes in memory, features that tell classes apart, a verdict drawn from them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from rehead.auditing.findings import (
    Audit,
    Broken,
    CopyGroup,
    Field,
    LabelIssue,
    Leaks,
    OddPicture,
    Outlier,
    Shortcut,
)
from rehead.bundle import sigmoid, softmax
from rehead.data.rows import Photo
from rehead.data.targets import targets_of
from rehead.reporting.story import Story
from rehead.verdict.calibrate import calibration
from rehead.verdict.growth import growth
from rehead.verdict.intervals import wilson
from rehead.verdict.judging import judge_task
from rehead.verdict.selective import judge_selective

WIDTH = 16


def jpeg(seed: int, size: tuple[int, int] = (96, 72), *, noise: bool = False) -> bytes:
    """A picture of its own; of noise, what no codec makes small."""
    random = np.random.default_rng(seed)
    cells = (size[1], size[0]) if noise else (6, 8)
    image = Image.fromarray(random.integers(0, 256, (*cells, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def story(
    n: int = 60,
    classes: Sequence[str] = ("ants", "bees"),
    *,
    name: Callable[[int, str], str] = lambda i, label: f"{label}/{i}.jpg",
    read: Callable[[Photo], bytes] | None = None,
    spread: float = 0.9,
    **changed: Any,
) -> Story:
    """n photos of these classes in turn, every third held out. spread: how far features stray; at 0.9 some are mistaken."""
    labels = [classes[i % len(classes)] for i in range(n)]
    sides = ["valid" if i % 3 == 2 or n == 1 else "train" for i in range(n)]
    photos = photos_of([name(i, label) for i, label in enumerate(labels)], labels, sides)
    features = _features(np.arange(n) % len(classes), len(classes), spread)
    held_out = [i for i, side in enumerate(sides) if side == "valid"]
    y = np.array([i % len(classes) for i in held_out])
    logits = 2 * features[held_out, : len(classes)]
    probabilities = softmax(logits.astype(np.float32))
    verdict = judge_task("classification", logits, y, classes=classes, thresholds=(), median=0.0,
                         paths=[photos[i].path for i in held_out], side="drawn", n_train=n - len(held_out))  # fmt: skip
    parts = {"calibration": calibration(logits, y, 1.2, 40)}
    if len(classes) > 1:
        sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
        parts["selective"] = judge_selective(sure, right, precision=0.95, threshold=0.7, n_chosen=40)
        tries = [np.stack([right] * 2) & (np.arange(len(y)) % k != 0) for k in (2, 3, 5, 9)] + [right[None]]
        parts["growth"] = growth([n // 16 + 1, n // 8 + 2, n // 4 + 3, n // 2 + 4, n + 5], tries)
    return Story(**{
        "name": "made-up-1", "verdict": replace(verdict, **parts), "classes": tuple(classes), "photos": photos,
        "held_out": tuple(held_out), "probabilities": probabilities, "features": features,
        "read": read or (lambda photo: jpeg(photo.digest[0])), "made": MADE, **changed,
    })  # fmt: skip


def full_story(**changed: Any) -> Story:
    """One with all parts: an audit, unfamiliar photos, activation maps."""
    whole = story(**changed)
    unfamiliar = np.arange(len(whole.held_out)) < 2
    heat = lambda data, place: np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)  # noqa: E731
    return replace(whole, audit=audit_of(whole.photos), unfamiliar=unfamiliar, heat=heat)


def labels_story() -> Story:
    """Several labels a photo."""
    kinds = ["red", "red;round", "round", ""] * 15
    photos = photos_of([f"{i}.jpg" for i in range(60)], kinds, ["train", "valid"] * 30)
    held_out = [i for i, photo in enumerate(photos) if photo.side == "valid"]
    targets = targets_of([photos[i].label for i in held_out], "multilabel", ("red", "round"))
    logits = 4 * targets - 2 + np.random.default_rng(0).normal(0, 1.5, targets.shape)
    verdict = judge_task("multilabel", logits, targets, classes=("red", "round"), thresholds=(0.5, 0.5), median=0.0,
                         paths=[photos[i].path for i in held_out], side="drawn")  # fmt: skip
    return Story(name="labels", verdict=verdict, classes=("red", "round"), photos=photos, held_out=tuple(held_out),
                 probabilities=sigmoid(logits.astype(np.float32)), features=_features(np.arange(60) % 4, 4, 0.9),
                 read=lambda photo: jpeg(photo.digest[0]), audit=audit_without_classes(photos), made=MADE)  # fmt: skip


def numbers_story() -> Story:
    """A number a photo."""
    values = np.linspace(1, 20, 60)
    photos = photos_of([f"{i}.jpg" for i in range(60)], [f"{v:.2f}" for v in values], ["train", "valid"] * 30)
    predicted = (values + np.random.default_rng(0).normal(0, 2, 60))[1::2]
    verdict = judge_task("regression", predicted[:, None], values[1::2], classes=(), thresholds=(), median=10.0,
                         paths=[photo.path for photo in photos[1::2]], side="drawn")  # fmt: skip
    return Story(name="numbers", verdict=verdict, classes=(), photos=photos, held_out=tuple(range(1, 60, 2)),
                 probabilities=predicted.astype(np.float32)[:, None], features=_features(np.arange(60) // 15, 4, 0.9),
                 read=lambda photo: jpeg(photo.digest[0]), audit=audit_without_classes(photos), made=MADE)  # fmt: skip


def audit_without_classes(photos: Sequence[Photo]) -> Audit:
    """Of photos that have no class each: nothing stands out."""
    note = "Wrong labels and shortcuts are looked for where a photo has one class."
    return Audit(n=len(photos), backbone="made up", notes=(note,))


def audit_of(photos: Sequence[Photo]) -> Audit:
    """Something of everything, about these photos."""
    one, two, three = photos[:3]
    return Audit(
        n=len(photos),
        backbone="made up",
        copies=(
            CopyGroup((one.path, three.path), ("train", "valid"), (one.label, three.label), False, 4, True, (0, 1)),
        ),
        leaks=Leaks(1, wilson(18, 20), wilson(17, 19)),
        labels=(LabelIssue(two.path, two.side, two.label, 0.04, one.label, 0.95),),
        n_judged=len(photos),
        outliers=(Outlier(three.path, three.side, three.label, 0.8, 0.3),),
        pictures=(OddPicture(two.path, two.side, two.label, "dark", "mean brightness 3 of 255"),),
        broken=(Broken("ants/broken.jpg", "is empty (0 bytes)"),),
        shortcuts=(
            Shortcut("file", wilson(50, 60), wilson(30, 60), 0.001, True, (Field("width", wilson(48, 60), 0.002),)),
        ),
        notes=("Borders were not looked at: the photos are too few.",),
    )


def photos_of(paths: Sequence[str], labels: Sequence[str], sides: Sequence[str]) -> tuple[Photo, ...]:
    """Photos whose digests are their places."""
    facts = zip(paths, labels, sides, strict=True)
    return tuple(Photo(path, label, side, i.to_bytes(32, "little")) for i, (path, label, side) in enumerate(facts))


MADE = {"Recipe": [("head", "linear"), ("seed", "0")], "Again": [("command", "rehead tune photos/ --seed 0")]}


def _features(kind: Any, n_kinds: int, spread: float) -> Any:
    width = max(WIDTH, n_kinds)
    noise = np.random.default_rng(1).normal(0, spread, (len(kind), width))
    return (np.eye(width)[kind] * 2 + noise).astype(np.float32)
