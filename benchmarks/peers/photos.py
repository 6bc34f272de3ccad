"""The same photos for every peer: WORK/photos/<data>/{train,val}/<class>/<file>, copies of the files that are given.

Cats and dogs have the 400 of dogscats_test.txt in val/, ants and bees their own val/, flowers a fifth, drawn by rehead from
each file's bytes with near copies on one side. Left out is what is no photo, cannot be decoded, or is there twice.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from PIL import Image
from places import DATA, WORK

from rehead.auditing.ties import tied
from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.job import Job

SETS = ("hymenoptera", "dogscats", "flowers")  # small ones first
HELD_OUT = 0.2  # of flowers, which bring no split
SEED = 0  # of that split; the seeds of the matrix change what a peer does, never the photos


def lay_out(name: str, work: Path) -> Path:
    """The folder of a set of photos; what is there already stays."""
    folder = work / "photos" / name
    if folder.is_dir():
        return folder
    if not (DATA / name).is_dir():
        raise SystemExit(f"{DATA / name} is not there. Name the folder of photos with REHEAD_DATA.")
    growing = folder.with_name(f".{name}")
    shutil.rmtree(growing, ignore_errors=True)
    for source, side, label in sides(name):
        place = growing / side / label / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    growing.rename(folder)
    return folder


def sides(name: str) -> list[tuple[Path, str, str]]:
    """Each photo of a set with its side, train or val, and its class."""
    with tempfile.TemporaryDirectory() as cache:
        catalog = scan(open_source(DATA / name, cache=Path(cache)), seed=SEED, valid_fraction=HELD_OUT)
        if name == "dogscats":
            catalog = _by_list(catalog, set((DATA / "dogscats_test.txt").read_text().split()))
        catalog = tied(Job(catalog, Path(cache)), range(len(catalog.photos)))  # moves nothing where the sides are given
        catalog = catalog.catalog
    found = [(DATA / name / p.path, "train" if p.side == "train" else "val", str(p.label)) for p in catalog.photos]
    return [row for row in found if _decodes(row[0])]


def counts(folder: Path) -> dict[str, int]:
    """How many photos a laid out set has on each side."""
    return {side: sum(1 for _ in (folder / side).glob("*/*")) for side in ("train", "val")}


def _by_list(catalog: Catalog, held_out: set[str]) -> Catalog:
    def side(path: str) -> str:
        return "test" if "/".join(Path(path).parts[-2:]) in held_out else "train"

    return replace(catalog, ours=False, photos=tuple(replace(p, side=side(str(p.path))) for p in catalog.photos))


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return False
    return True


if __name__ == "__main__":
    place = Path(sys.argv[1]) if sys.argv[1:] else WORK
    for wanted in SETS:
        laid = lay_out(wanted, place)
        print(wanted, counts(laid), dict(Counter(p.parent.name for p in laid.glob("val/*/*"))))
