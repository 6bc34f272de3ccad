"""Two bundles on the same photos, against a plain count; and what cannot be compared."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import ImageDraw
from scipy.stats import binomtest

import rehead
from rehead import load, tune
from rehead.compare_bundles import Compared, compare
from rehead.errors import BundleError, SourceError
from rehead.progress import Silent
from rehead.verdict.compare import paired


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def bundles(folder: Path, cache: Path) -> tuple[Path, Path]:
    """One of red and blue, one that took red for blue in half of what it learned from."""
    photos = make_photos(folder / "photos", {"red": 24, "blue": 24})
    good = rehead.tune(photos, cache=cache, out=folder / "good", report=False).bundle
    for i in range(24):
        noise(500 + i, (120, 60, 60) if i % 2 else (60, 60, 120)).save(
            photos / ("blue" if i % 2 else "red") / f"x{i}.png"
        )
    return good, rehead.tune(photos, cache=cache, out=folder / "bad", report=False).bundle


@pytest.fixture(scope="module")
def compared(bundles: tuple[Path, Path], folder: Path, cache: Path) -> Compared:
    new = make_photos(folder / "new", {"red": 6, "blue": 6, "green": 2})
    for i in range(8):
        noise(900 + i, (120, 60, 60)).save(new / "red" / f"pale{i}.png")
    return compare(*bundles, new, cache=cache)


def test_the_table_is_that_of_a_plain_count(compared: Compared, bundles: tuple[Path, Path], folder: Path) -> None:
    photos = sorted([*(folder / "new" / "red").iterdir(), *(folder / "new" / "blue").iterdir()])
    said = [[p.label for p in rehead.load(bundle).predict([str(path) for path in photos])] for bundle in bundles]
    right = [[name == path.parent.name for name, path in zip(names, photos, strict=True)] for names in said]
    only_first = sum(a and not b for a, b in zip(*right, strict=True))
    only_second = sum(b and not a for a, b in zip(*right, strict=True))
    found = compared.beside
    assert (found.n, found.only_first, found.only_second) == (20, only_first, only_second)
    assert [interval.value for interval in compared.scores] == pytest.approx([np.mean(r) for r in right])
    assert len(compared.changes) == only_first + only_second
    assert compared.read(compared.photos[0])[:4] == b"\x89PNG"
    assert compared.names == ("good", "bad")


def test_what_is_left_out_is_named(compared: Compared) -> None:
    assert "2 photos of classes that not both know are left out." in compared.notes
    json.dumps(compared.to_dict())


def test_the_page_shows_every_photo_that_changed(compared: Compared) -> None:
    html = compared.page()
    assert html.count('<figure class="tile">') == len(compared.changes) > 0
    assert html.count("data:image/webp") == len(compared.changes)
    assert "good is better by" in html or "They cannot be told apart" in html


def test_mcnemars_test_is_that_of_a_coin() -> None:
    first, second = np.arange(40) < 30, np.arange(40) >= 8
    found = paired(first, second, np.zeros(40, np.int64))
    assert (found.both, found.only_first, found.only_second, found.neither) == (22, 8, 10, 0)
    assert found.p == pytest.approx(binomtest(8, 18).pvalue)
    assert found.sentence("A", "B").startswith("They cannot be told apart: of 40 photos A alone is right on 8, B")
    better = paired(np.ones(40, bool), second, np.zeros(40, np.int64))
    assert better.sentence("A", "B").startswith("A is better by 20.0 points: A alone is right on 8 of 40 photos")
    same = paired(first, first, np.zeros(40, np.int64))
    assert (same.p, same.sentence("A", "B")) == (1.0, "A and B are right on the same 30 of 40 photos.")


def test_bundles_without_a_class_in_common_and_of_other_kinds_are_refused(
    bundles: tuple[Path, Path], folder: Path, cache: Path
) -> None:
    golden = Path(__file__).parent / "golden"
    with pytest.raises(BundleError, match="one is for classification, the other for multilabel"):
        compare(bundles[0], golden / "bundle-2", folder / "new", cache=cache)
    green = make_photos(folder / "other", {"green": 3})
    with pytest.raises(SourceError, match="None of the photos is of a class that both bundles know"):
        compare(*bundles, green, cache=cache)


def test_a_photo_that_only_the_second_cannot_read_is_left_out_for_both(
    bundles: tuple[Path, Path], folder: Path, cache: Path
) -> None:
    paths = sorted(make_photos(folder / "lost", {"red": 4, "blue": 4}).rglob("*.png"))
    is_gone: list[str] = []

    class Photos:
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> tuple[Path, str]:
            if is_gone and i == 3:
                raise OSError("the disk is not there any more")
            return paths[i], paths[i].parent.name

    class Watching(Silent):
        def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
            if name == "Asking bad":
                is_gone.append(name)

    found = compare(*bundles, Photos(), cache=cache, progress=Watching())
    assert found.beside.n == 7
    facts = json.loads(json.dumps(found.to_dict()))
    assert [skip["path"] for skip in facts["skipped"]] == ["dataset[3]"]
    assert "the disk is not there any more" in facts["skipped"][0]["reason"]
    assert facts["names"] == ["good", "bad"]


def sized(folder: Path, seed: int, n: int, *, off: float = 0.0) -> Path:
    """Photos of a disc and a table of how wide it is, with an error of `off` in half of the rows."""
    dice, rows = np.random.default_rng(seed), ["path,label"]
    folder.mkdir()
    for i, wide in enumerate(dice.uniform(3, 30, n).round(2)):
        image = noise(seed + i, (128, 128, 128))
        ImageDraw.Draw(image).ellipse([32 - wide, 32 - wide, 32 + wide, 32 + wide], fill=(230, 30, 30))
        image.save(folder / f"{i}.png")
        rows.append(f"{i}.png,{wide + off * (i % 2):.2f}")
    (folder / "sizes.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "sizes.csv"


def test_bundles_that_give_numbers_are_compared_by_how_far_off_they_are(
    cache: Path, tmp_path: Path, rehead: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    tables = [sized(tmp_path / "good", 0, 60), sized(tmp_path / "bad", 100, 60, off=25)]
    good, bad = (
        tune(table, cache=cache, out=tmp_path / f"by-{table.parent.name}", report=False).bundle for table in tables
    )
    new = sized(tmp_path / "new", 200, 30)
    found = compare(bad, good, new, cache=cache)
    values = [float(line.split(",")[1]) for line in new.read_text().splitlines()[1:]]
    photos = [str(new.parent / f"{i}.png") for i in range(30)]
    off = [np.abs([one.value - value for one, value in zip(load(bundle).predict(photos), values, strict=True)])
           for bundle in (bad, good)]  # fmt: skip
    assert [score.value for score in found.scores] == pytest.approx([off[0].mean(), off[1].mean()], rel=1e-5)
    assert found.beside.difference.value == pytest.approx((off[1] - off[0]).mean(), rel=1e-5)
    assert len(found.changes) == 30
    nearer = off[0] - off[1]
    assert found.changes[0].path == f"{nearer.argmax()}.png"
    assert [change.is_gain for change in found.changes] == [True] * (nearer > 0).sum() + [False] * (nearer < 0).sum()
    assert found.sentence.startswith("by-good is better: on 30 photos by-bad is off by ")
    html = found.page()
    assert html.count('<figure class="tile">') == 30
    assert f"<h2>by-good is nearer: {(nearer > 0).sum()} photos</h2>" in html
    done = rehead("compare", bad, good, new, "--json")
    facts = json.loads(done.stdout)
    assert facts["errors"][0]["value"] == pytest.approx(off[0].mean(), rel=1e-5)
    assert facts["scored"]["measure"] == "mean error"
    shown = rehead("compare", bad, good, new)
    assert "nearer by one" in shown.stdout
    assert "off by" in shown.stdout
