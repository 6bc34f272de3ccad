"""Claims: of 5 % flipped labels among cats and dogs at least 80 % rank within the first 8 %; of 300 copies saved again at JPEG
quality 30 to 95 and 0.35 to 1.6 of the size at least 95 % are found, and no photo that is none; on photos as they come no
shortcut is called; everything but extraction takes under 60 s for 10,000 photos, with random features.

Flips: three seeds each. Copies: also thumbnails, 0.15 to 0.4 of the size at quality 8 to 35, of which nothing is claimed.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured import DATA, report
from PIL import Image

from rehead.auditing.apart import logits_apart
from rehead.auditing.audit import audit_folds, audit_photos
from rehead.auditing.copies import alike, copy_groups
from rehead.auditing.hashes import as_words
from rehead.auditing.job import look_at
from rehead.auditing.kept import facts_of_photos
from rehead.auditing.labels import label_issues
from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.features.cache import cache_folder
from rehead.job import Job
from rehead.tuning.recipe import Recipe

SETS = ("dogscats", "hymenoptera", "flowers")
N_SPEED = 10_000


def catalog_of(source: object, cache: Path) -> Catalog:
    return scan(open_source(source, cache=cache), seed=0, valid_fraction=0.2, cache=cache, is_learned=False)


def flips(name: str, cache: Path) -> dict[str, Any]:
    """Precision and recall of flipped labels, and what is found where none is flipped."""
    catalog = catalog_of(DATA / name, cache)
    looked = look_at(Job(catalog, cache), Recipe(max_bad=1.0))
    features, positions = looked.features, looked.positions

    def found(catalog: Catalog) -> list[str]:
        folds = audit_folds(catalog, positions, looked.found, 0)
        apart = logits_apart(features, catalog.labels(positions), len(catalog.classes), folds)
        return [issue.path for issue in label_issues(catalog, positions, apart)]

    facts = {}
    for seed in range(3):
        random, photos = np.random.default_rng(seed), list(catalog.photos)
        chosen = random.permutation(positions)[: round(0.05 * len(positions))].tolist()
        for i in chosen:
            others = [label for label in catalog.classes if label != photos[i].label]
            photos[i] = replace(photos[i], label=others[int(random.integers(len(others)))])
        flipped = {photos[i].path for i in chosen}
        issues = found(replace(catalog, photos=tuple(photos)))
        hits = [path in flipped for path in issues]
        top = sum(hits[: round(0.08 * len(positions))])
        facts[f"{name}, flips of seed {seed}: found, precision, recall, recall in the first 8 %"] = (
            f"{len(issues)}, {np.mean(hits):.3f}, {sum(hits) / len(flipped):.3f}, {top / len(flipped):.3f}"
        )
    labels, folds = catalog.labels(positions), audit_folds(catalog, positions, looked.found, 0)
    apart = logits_apart(features, labels, len(catalog.classes), folds)
    audit = audit_photos(catalog, positions, features, backbone="", facts=looked.facts, found=looked.found, apart=apart)
    facts[f"{name} as it comes: labels, groups of copies, odd pictures, outliers, shortcuts"] = (
        f"{len(audit.labels)}, {len(audit.copies)}, {len(audit.pictures)}, {len(audit.outliers)}, "
        f"{[s.source for s in audit.shortcuts if s.is_found]}"
    )
    for s in audit.shortcuts:
        facts[f"{name}, {s.source}: told, majority, control"] = f"{s.accuracy}, {s.majority}, {s.control}"
    facts[f"{name}: fewest bits of all pairs"] = fewest_bits(looked)
    return facts


def fewest_bits(looked: Any) -> list[int]:
    """The 30 fewest bits by which the hashes of two photos differ."""
    hashes = as_words(looked.facts[i].hash for i in looked.positions)
    bits = np.bitwise_count(hashes[:, None] ^ hashes).sum(2)
    return np.sort(bits[np.triu_indices(len(bits), 1)])[:30].astype(int).tolist()


def copies(folder: Path, cache: Path, scales: tuple[float, float], qualities: tuple[int, int]) -> dict[str, Any]:
    """How many of 300 copies of cats and dogs are found, and what else is, and how many the neighbours of features hold."""
    random, planted = np.random.default_rng(0), {}
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        paths = sorted((DATA / "dogscats" / label).glob("*.jpg"))
        for path in paths:
            (folder / label / path.name).symlink_to(path)
        for i in random.permutation(len(paths))[:150]:
            with Image.open(paths[i]) as picture:
                scale, quality = random.uniform(*scales), int(random.integers(*qualities))
                small = picture.convert("RGB").resize(
                    (max(20, int(scale * picture.width)), max(20, int(scale * picture.height)))
                )
            name = f"{paths[i].stem}-again.jpg"
            small.save(folder / label / name, quality=quality)
            planted[f"{label}/{name}"] = f"{label}/{paths[i].name}"
    catalog = catalog_of(folder, cache)
    looked = look_at(Job(catalog, cache), Recipe(max_bad=1.0))
    position = {photo.path: i for i, photo in enumerate(catalog.photos)}
    hashes = {path: looked.facts[position[path]].hash for pair in planted.items() for path in pair}
    bits = [(hashes[a] ^ hashes[b]).bit_count() for a, b in planted.items()]
    groups = [set(group.paths) for group in copy_groups(catalog, looked.found.pairs, looked.positions)]
    n = sum(any({a, b} <= group for group in groups) for a, b in planted.items())
    near = dict(zip(looked.positions, looked.found.nearest.places.tolist(), strict=True))
    held = sum(looked.positions.index(position[b]) in near[position[a]] for a, b in planted.items())
    title = f"copies of {scales[0]} to {scales[1]} of the size, quality {qualities[0]} to {qualities[1] - 1}"
    return {
        f"{title}: found": f"{n} of {len(planted)}",
        f"{title}: groups besides": len(groups) - n,
        f"{title}: bits, median, 95 %, highest": np.quantile(bits, [0.5, 0.95, 1]).tolist(),
        f"{title}: among the 5 nearest by features": f"{held} of {len(planted)}",
    }


def speed(folder: Path, cache: Path) -> dict[str, Any]:
    paths = sorted((DATA / "dogscats").glob("*/*.jpg"))
    for i in range(N_SPEED):
        path = folder / paths[i % len(paths)].parent.name / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(paths[i % len(paths)].read_bytes() + i.to_bytes(4, "big"))  # another file, the same picture
    catalog = catalog_of(folder, cache)
    positions, labels = list(range(N_SPEED)), catalog.labels()
    random = np.random.default_rng(0)
    features = (random.normal(size=(N_SPEED, 1280)) + 0.05 * labels[:, None] * random.normal(size=1280)).astype(
        np.float32
    )
    clock = [(time.monotonic(), time.process_time())]

    def lap() -> None:
        clock.append((time.monotonic(), time.process_time()))

    facts, _ = facts_of_photos(catalog, positions, None)
    lap()
    found = alike(positions, features, facts)
    lap()
    apart = logits_apart(features, labels, 2, audit_folds(catalog, positions, found, 0))
    lap()
    audit_photos(catalog, positions, features, backbone="", facts=facts, found=found, apart=apart)
    lap()
    steps = np.diff(np.array(clock), axis=0).round(1)
    return {
        "10,000 photos: s, CPU s": steps.sum(axis=0).round(1).tolist(),
        "facts, neighbours, folds, the rest: s": steps[:, 0].tolist(),
        "the same: CPU s": steps[:, 1].tolist(),
    }


if __name__ == "__main__":
    facts: dict[str, Any] = {}
    for name in SETS:
        facts |= flips(name, cache_folder(None))
    with tempfile.TemporaryDirectory() as folder:
        facts |= copies(Path(folder, "copies"), cache_folder(None), (0.35, 1.6), (30, 96))
        facts |= copies(Path(folder, "thumbnails"), cache_folder(None), (0.15, 0.4), (8, 36))
        facts |= speed(Path(folder, "many"), cache_folder(None))
    report("audit", facts)
