"""Faults that are planted among real cats and dogs are found, and little else. What is found is printed with -s."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import rehead
from rehead.auditing.copies import joined
from rehead.auditing.findings import Audit
from rehead.auditing.kept import facts_of_photos
from rehead.auditing.shortcuts import shortcuts
from rehead.data.scan import scan
from rehead.data.sources import open_source

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
KNOWN = ("dog.180.jpg", "dog.74.jpg")  # one picture twice, as the photos come


@dataclass(frozen=True)
class Planted:
    """Names of the files: flips with their labels before, copies and leaks with their originals, files cut short."""

    audit: Audit
    flips: dict[str, str]
    copies: dict[str, str]
    leaks: dict[str, str]
    broken: set[str]


@pytest.fixture(scope="module")
def planted(data: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Planted:
    """The photos with all faults at once, audited. Features of the unmodified ones are kept between sessions of tests."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("planted")
    photos = sorted((data / "dogscats").glob("*/*.jpg"))
    order = [photos[i] for i in random.permutation(len(photos))]
    rows = {path: [path.parent.name, "valid" if i % 5 == 0 else "train"] for i, path in enumerate(order)}
    flips = {path.name: rows[path][0] for path in order[: len(order) // 20]}
    for path in order[: len(flips)]:
        rows[path][0] = {"cat": "dog", "dog": "cat"}[rows[path][0]]
    copies, leaks, broken = {}, {}, set()
    for n, original in enumerate(path for path in order[200:250]):
        label, side = rows[original]
        name = f"{original.stem}-again.jpg"
        with Image.open(original) as picture:
            scale = random.uniform(0.4, 1.5)
            small = picture.resize((round(scale * picture.width), round(scale * picture.height)))
            small.save(folder / name, quality=int(random.integers(30, 95)))
        (copies if n < 30 else leaks)[name] = original.name
        rows[folder / name] = [label, side if n < 30 else {"train": "valid", "valid": "train"}[side]]
    for original in order[300:310]:
        path = folder / f"{original.stem}-cut.jpg"
        path.write_bytes(original.read_bytes()[: original.stat().st_size * 2 // 3])
        rows[path] = ["cat", "train"]
        broken.add(path.name)
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *([path, *row] for path, row in rows.items())])
    cache = pytestconfig.cache.mkdir("rehead-audit")  # type: ignore[union-attr]
    return Planted(rehead.audit(folder / "photos.csv", cache=cache), flips, copies, leaks, broken)


def test_flipped_labels_rank_first(planted: Planted) -> None:
    found = [Path(issue.path).name for issue in planted.audit.labels]
    top = found[: round(0.08 * planted.audit.n)]
    hits = [name for name in top if name in planted.flips]
    print(f"{len(planted.flips)} flips, {len(found)} found: precision {len(hits) / len(top):.3f}, "
          f"recall {len(hits) / len(planted.flips):.3f}")  # fmt: skip
    assert len(hits) >= 0.8 * len(planted.flips)
    assert all(i.suggested == planted.flips[n] for n, i in zip(found, planted.audit.labels, strict=True) if n in hits)


def test_copies_and_leaks_are_found_and_no_others(planted: Planted) -> None:
    groups = [{Path(path).name for path in group.paths} for group in planted.audit.copies]
    leaking = [names for names, group in zip(groups, planted.audit.copies, strict=True) if group.is_leak]
    copies = sum(any({name, original} <= names for names in groups) for name, original in planted.copies.items())
    leaks = sum(any({name, original} <= names for names in leaking) for name, original in planted.leaks.items())
    wanted = [set(group) for group in joined((*planted.copies.items(), *planted.leaks.items(), KNOWN))]
    print(f"copies {copies} of 30, leaks {leaks} of 20, false {[names for names in groups if names not in wanted]}")
    assert copies >= 0.95 * 30
    assert leaks >= 0.95 * 20
    assert sum(names not in wanted for names in groups) <= 1


def test_the_accuracy_is_told_without_the_leaks(planted: Planted) -> None:
    leaks = planted.audit.leaks
    assert leaks.accuracy is not None
    assert leaks.without is not None
    assert leaks.accuracy.n - leaks.without.n == leaks.n >= 19


def test_all_broken_files_are_found_and_no_others(planted: Planted) -> None:
    assert {Path(broken.path).name for broken in planted.audit.broken} == planted.broken


def test_neither_file_nor_border_is_called_a_shortcut(planted: Planted) -> None:
    assert not any(shortcut.is_found for shortcut in planted.audit.shortcuts)


def framed(picture: Image.Image, label: str) -> Image.Image:
    return ImageOps.expand(picture, 3, (60, 60, 60) if label == "cat" else (90, 90, 90))


def resaved(picture: Image.Image, label: str) -> Image.Image:
    return picture


@pytest.mark.parametrize(("change", "quality", "source", "field"), [
    (framed, {"cat": 85, "dog": 85}, "border", "edge"), (resaved, {"cat": 85, "dog": 90}, "file", "JPEG quality")])  # fmt: skip
def test_a_border_or_a_quality_that_tells_the_class_is_found(
    change: Callable[[Image.Image, str], Image.Image],
    quality: dict[str, int],
    source: str,
    field: str,
    data: Path,
    tmp_path: Path,
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for path in sorted((data / "dogscats" / label).glob("*.jpg"))[:60]:
            with Image.open(path) as picture:
                change(picture, label).save(tmp_path / label / path.name, quality=quality[label])
    catalog = scan(open_source(tmp_path, cache=tmp_path), seed=0, valid_fraction=0.2, is_learned=False)
    facts, _ = facts_of_photos(catalog, range(len(catalog.photos)), None)
    labels = dict(enumerate(catalog.labels().tolist()))
    found = {s.source: s for s in shortcuts(catalog, facts, labels, {i: i % 5 for i in facts})}
    assert {name for name, shortcut in found.items() if shortcut.is_found} == {source}
    assert field in found[source].fields[0].name
