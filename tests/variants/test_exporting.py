"""Exports: what is handed over is what was measured, and what is worse or goes wrong leaves the bundle as it was."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import Image
from small_models import pixels_of, small_bundle, write_photos

import rehead as library
from rehead import bundle as bundles
from rehead.errors import (
    BundleError,
    MissingExtra,
    RecipeError,
    RunError,
    SourceError,
    TooManyBad,
    WorseVariant,
)
from rehead.progress import Silent
from rehead.runs.finished import read_finished
from rehead.variants.job import FORMS, export
from rehead.variants.photos import photos_of

Rehead = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, and `bundle` with its three variants; never changed by a test."""
    folder = tmp_path_factory.mktemp("exporting")
    write_photos(folder / "photos")
    small_bundle(folder / "plain", folder / "photos")
    shutil.copytree(folder / "plain", folder / "bundle")
    for to in FORMS:
        export(folder / "bundle", to, photos=folder / "photos", cache=folder / "cache")
    return folder


@pytest.fixture
def plain(place: Path, tmp_path: Path) -> Path:
    """The bundle without variants, to be changed."""
    return shutil.copytree(place / "plain", tmp_path / "bundle")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def label_of(path: Path, task: str) -> str:
    return ("15.0" if path.parent.name == "red" else "10.5") if task == "regression" else path.parent.name


def write_table(table: Path, rows: list[tuple[Path, str, str]]) -> None:
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])


def test_a_bundle_carries_all_forms_and_names_them(place: Path) -> None:
    bundle = bundles.read(place / "bundle")
    assert list(bundle.variants) == ["int8", "openvino", "torch"]
    assert [path.name for v in bundle.variants.values() for path in v.files] == [
        "int8.onnx", "openvino.xml", "openvino.bin", "torch.pt2",
    ]  # fmt: skip
    assert bundle.model.read_bytes() == (place / "plain" / "model.onnx").read_bytes()


@pytest.mark.parametrize(("name", "allowed"), [("openvino", 1e-4), ("torch", 1e-4), ("int8", 0.1)])
def test_a_form_answers_as_the_original_does(place: Path, name: str, allowed: float) -> None:
    pixels = pixels_of(place / "photos")
    original, form = library.load(place / "bundle"), library.load(place / "bundle", variant=name)
    assert np.abs(original.probabilities(pixels) - form.probabilities(pixels)).max() < allowed
    assert np.abs(original.distances(pixels) - form.distances(pixels)).max() < allowed
    answers = [[p.label for p in model.predict_pixels(pixels)] for model in (original, form)]
    assert np.mean([a == b for a, b in zip(*answers, strict=True)]) > 0.97


def test_what_stands_in_the_bundle_is_what_was_measured(plain: Path, place: Path) -> None:
    done = export(plain, "openvino", photos=place / "photos", cache=place / "cache")
    kept = json.loads((plain / "rehead.json").read_text())["variants"]["openvino"]["measured"]
    assert kept == json.loads(json.dumps(done.measured.to_dict()))
    assert kept["notes"] == ["The bundle lies apart from its run: whether it learned from these photos is not known."]
    assert kept["same"] == 1.0
    assert kept["difference"]["value"] == 0.0
    assert kept["variant"]["size_bytes"] == sum(path.stat().st_size for path in done.files)
    assert kept["original"]["photos_per_s"] > 0
    assert kept["n"] == len(photos_of(bundles.read(plain), place / "photos", "auto", None, Silent()).held_out)


def test_the_figures_are_those_of_verify_on_the_same_photos(place: Path, tmp_path: Path) -> None:
    bundle = bundles.read(place / "bundle")
    used = photos_of(bundle, place / "photos", "auto", None, Silent())
    rows = [used.catalog.photos[i] for i in used.held_out]
    table = tmp_path / "held_out.csv"
    table.write_text("path,label\n" + "".join(f"{place / 'photos' / p.path},{p.label}\n" for p in rows))
    for name in (None, "int8"):
        found = library.verify(place / "bundle", table, variant=name)
        measured = bundle.variants["int8"].measured["original" if name is None else "variant"]
        assert found.verdict.top1.value == measured["score"]["value"]  # type: ignore[union-attr]
        assert found.verdict.unfamiliar.value == measured["unfamiliar"]  # type: ignore[union-attr]


def test_a_photo_to_calibrate_with_is_never_one_to_judge_on(place: Path) -> None:
    used = photos_of(bundles.read(place / "plain"), place / "photos", "auto", None, Silent())
    digests = [{used.catalog.photos[i].digest for i in rows} for rows in (used.learn, used.held_out)]
    assert digests[0]
    assert digests[1]
    assert not digests[0] & digests[1]
    assert len(used.learn) + len(used.held_out) == 80


def test_as_many_bad_photos_as_were_allowed_are_left_out_of_what_calibrates(
    plain: Path, place: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(place / "photos", tmp_path / "photos")
    shown = photos_of(bundles.read(plain), photos, "auto", tmp_path / "cache", Silent())
    some = [shown.catalog.photos[row].path for row in shown.learn]
    for path in some[: len(some) // 3]:
        whole = (photos / path).read_bytes()
        (photos / path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TooManyBad, match="which is more than 20%"):
        export(plain, "onnx-int8", photos=photos, cache=tmp_path / "cache", force=True)
    assert (
        export(plain, "onnx-int8", photos=photos, cache=tmp_path / "cache", force=True, max_bad=0.5).variant == "int8"
    )


def test_predict_takes_a_variant_by_name(place: Path, rehead: Rehead) -> None:
    photo = place / "photos" / "red" / "0.png"
    done = rehead("predict", place / "bundle", photo, "--variant", "int8", "--format", "jsonl")
    said = json.loads(done.stdout)
    wanted = library.load(place / "bundle", variant="int8").predict(photo)
    assert (said["label"], said["probability"]) == (wanted.label, pytest.approx(wanted.probability))
    wrong = rehead("predict", place / "bundle", photo, "--variant", "int4")
    assert wrong.returncode == 2
    assert "has no variant 'int4'" in wrong.stderr
    assert "It has: int8, openvino, torch." in wrong.stderr
    assert "Did you mean 'int8'?" in wrong.stderr
    none = rehead("predict", place / "plain", photo, "--variant", "int8")
    assert "It has none but its own graph." in none.stderr


def test_a_worse_form_is_not_handed_over_unless_that_is_asked_for(tmp_path: Path, rehead: Rehead) -> None:
    photos = write_photos(tmp_path / "photos", noise=20)
    bundle = small_bundle(tmp_path / "bundle", photos, brittle=True)
    before = contents(bundle)
    refused = rehead("export", bundle, "--to", "onnx-int8", "--photos", photos, "--json")
    assert refused.returncode == 2
    assert "Nothing was added" in refused.stderr
    found = json.loads(refused.stdout)
    assert found["variant"] is None
    assert found["measured"]["difference"]["value"] < -0.01
    assert contents(bundle) == before
    taken = rehead("export", bundle, "--to", "onnx-int8", "--photos", photos, "--force")
    assert taken.returncode == 0, taken.stderr
    assert list(bundles.read(bundle).variants) == ["int8"]


def test_a_drop_of_one_point_is_not_over_it(place: Path) -> None:
    measured = export(place / "plain", "openvino", photos=place / "photos", out=place / "elsewhere").measured
    assert (place / "elsewhere" / "openvino.xml").is_file()
    kept = json.loads((place / "elsewhere" / "measured.json").read_text())
    assert kept == json.loads(json.dumps(measured.to_dict()))
    assert not bundles.read(place / "plain").variants
    difference = measured.difference
    assert difference is not None
    for drop, is_worse in ((0.0, False), (0.01, False), (0.0101, True), (-0.2, False)):
        assert replace(measured, difference=replace(difference, value=-drop)).is_worse is is_worse


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "mAP"), ("regression", "R2")])
def test_labels_and_numbers_are_judged_by_their_own_measure(tmp_path: Path, task: str, metric: str) -> None:
    photos = write_photos(tmp_path / "photos", 30)
    bundle = small_bundle(tmp_path / "bundle", photos, task)
    table = tmp_path / "photos.csv"
    write_table(table, [(path, label_of(path, task), "") for path in sorted(photos.rglob("*.png"))])
    measured = export(bundle, "onnx-int8", photos=table, force=True).measured
    assert measured.metric == metric
    assert measured.difference is not None
    assert abs(measured.difference.value) < 0.2
    for figures in (measured.original, measured.variant):
        assert figures.score is not None
        assert 0.5 < figures.score.value <= 1
        assert (figures.mae is None) == (task == "multilabel")
        assert figures.unsure is None
    assert (measured.same is None) == (task == "regression")
    numbers = library.load(bundle, variant="int8").predict([str(path) for path in photos.rglob("red/*.png")][:3])
    assert len(numbers) == 3


@pytest.mark.parametrize(
    ("task", "n", "label", "undefined", "little"),
    [
        ("regression", 1, "10.5", "R2 is not defined on 1 photo.\n  R2 takes numbers that differ.", "1 photo says little."),
        ("regression", 8, "3", "R2 is not defined on 8 photos.\n  R2 takes numbers that differ.", "8 photos say little."),
        ("multilabel", 8, "", "mAP is not defined on 8 photos.\n  mAP takes photos that show a label.", "8 photos say little."),
    ],
)  # fmt: skip
def test_a_form_that_no_photo_can_judge_is_not_handed_over_unless_that_is_asked_for(
    tmp_path: Path, rehead: Rehead, task: str, n: int, label: str, undefined: str, little: str
) -> None:
    photos = write_photos(tmp_path / "photos", 20)
    bundle = small_bundle(tmp_path / "bundle", photos, task, brittle=True)
    before, table, paths = contents(bundle), tmp_path / "photos.csv", sorted(photos.rglob("*.png"))
    held_out = [(path, label, "test") for path in paths[:n]]
    write_table(table, [*held_out, *((path, label_of(path, task), "train") for path in paths[n:])])
    refused = rehead("export", bundle, "--to", "onnx-int8", "--photos", table, "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["measured"]["difference"] is None
    assert f"Error: The export cannot be judged: its {undefined} Nothing was added.\n" in refused.stderr
    assert "--photos DIR" in refused.stderr
    assert contents(bundle) == before
    taken = rehead("export", bundle, "--to", "onnx-int8", "--photos", table, "--force")
    assert taken.returncode == 0, taken.stderr
    assert f"\n{little} Name more: --photos DIR\n" in taken.stdout
    assert list(bundles.read(bundle).variants) == ["int8"]


def test_an_older_bundle_is_lifted_on_the_way(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "bundle-3"
    bundle = shutil.copytree(golden, tmp_path / "bundle")
    assert json.loads((bundle / "rehead.json").read_text())["format"] == 3
    photos = write_photos(tmp_path / "photos", 20)
    for to in ("openvino", "onnx-int8"):
        export(bundle, to, photos=photos, force=True)
    facts = json.loads((bundle / "rehead.json").read_text())
    assert (facts["format"], sorted(facts["variants"])) == (4, ["int8", "openvino"])
    one = library.load(bundle, variant="openvino").predict(photos / "red" / "0.png")
    assert one.probability == pytest.approx(
        library.load(golden).predict(photos / "red" / "0.png").probability, abs=1e-5
    )


def test_a_bundle_that_was_carried_away_needs_photos_to_be_named(plain: Path) -> None:
    with pytest.raises(RunError, match="are not known") as caught:
        export(plain, "openvino")
    assert caught.value.why == "It does not lie in the run that made it."
    assert caught.value.fix == "Name labelled photos, best those of its run: --photos DIR"


def test_photos_of_no_known_class_judge_nothing(plain: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "other", 5, ("green",))
    (tmp_path / "other" / "grey").mkdir()
    (tmp_path / "other" / "grey" / "0.png").write_bytes((tmp_path / "other" / "green" / "0.png").read_bytes())
    with pytest.raises(SourceError, match="a class that the bundle knows"):
        export(plain, "openvino", photos=tmp_path / "other")


@pytest.mark.parametrize("odd", [{"valid_fraction": "x"}, {"valid_fraction": 5}, {"seed": [1]}])
def test_a_recipe_that_does_not_say_how_photos_were_split_is_the_bundles_mistake(
    plain: Path, place: Path, odd: dict[str, object]
) -> None:
    facts = json.loads((plain / "rehead.json").read_text())
    (plain / "rehead.json").write_text(json.dumps({**facts, "recipe": odd}))
    with pytest.raises(BundleError, match=r"The recipe in .*rehead\.json does not say how its photos were split"):
        photos_of(bundles.read(plain), place / "photos", "auto", place / "cache", Silent())


def test_an_unknown_form_is_named_and_the_nearest_offered(plain: Path, place: Path) -> None:
    with pytest.raises(RecipeError, match="One of: onnx-int8, openvino, torch") as caught:
        export(plain, "onnx_int8", photos=place / "photos")
    assert caught.value.fix == "Did you mean 'onnx-int8'?"
    with pytest.raises(RecipeError, match="no export to TFLite"):
        export(plain, "tflite", photos=place / "photos")


def test_a_folder_that_is_there_is_never_replaced(plain: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RecipeError, match="is there already"):
        export(plain, "openvino", photos=place / "photos", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_nothing_is_written_beside_the_files_of_a_bundle(plain: Path, place: Path) -> None:
    before = contents(plain)
    for out in (plain, plain / "openvino"):
        with pytest.raises(RecipeError, match="lies in the bundle") as caught:
            export(plain, "openvino", photos=place / "photos", out=out)
        assert "--out" in caught.value.fix
    assert contents(plain) == before


def test_a_place_that_takes_no_files_is_named(plain: Path, place: Path) -> None:
    with pytest.raises(BundleError, match="cannot be written to /proc/rehead"):
        export(plain, "openvino", photos=place / "photos", out="/proc/rehead")


def test_a_library_that_is_missing_is_named(plain: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for to, extra in (("openvino", "openvino"), ("torch", "tune"), ("onnx-int8", "tune")):
        with pytest.raises(MissingExtra, match=rf"rehead\[{extra}\]"):
            export(plain, to, photos=place / "photos")
    with pytest.raises(MissingExtra, match=r"rehead\[openvino\]"):
        library.load(place / "bundle", variant="openvino")


def test_names_of_any_bytes_are_photos_too(plain: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    odd = ["caf\udce9 [1].png", "-rf.png", "a,b\n.png", "ünï;cöde.png"]
    for i, name in enumerate(odd):
        (photos / "red" / f"{i}.png").rename(photos / "red" / name)
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    done = export(plain, "openvino", photos=photos)
    shown = photos_of(bundles.read(plain), photos, "auto", None, Silent())
    held_out = [Path(shown.catalog.photos[i].path).name for i in shown.held_out]
    assert len(shown.catalog.photos) == 25
    assert set(held_out) & set(odd)
    assert done.measured.n + len(done.skipped) == len(held_out)
    told = json.loads(json.dumps(done.to_dict(), ensure_ascii=False).encode())["skipped"]
    assert [(one["path"], one["reason"]) for one in told] == [(one.path, one.reason) for one in done.skipped]


def test_a_named_photo_whose_near_copy_is_learned_from_is_not_judged_on(plain: Path, tmp_path: Path) -> None:
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    for label in ("blue", "red"):
        (photos / label).mkdir(parents=True)
        for i in range(30):
            picture = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64))
            picture.save(photos / label / f"{i}.png")
            picture.save(photos / label / f"{i}.copy.png", compress_level=1)  # the same in other bytes
    found = photos_of(bundles.read(plain), photos, "auto", tmp_path / "cache", Silent())
    side = {photo.path: photo.side for photo in found.catalog.photos}
    assert len(found.catalog.photos) == 120
    assert {side[path] for path in side} == {"train", "valid"}
    assert all(side[path] == side[path.replace(".copy", "")] for path in side)


@pytest.mark.parametrize("side", ["train", "valid"])
def test_a_few_photos_of_the_run_are_not_judged_on_where_they_were_learned_from(
    plain: Path, place: Path, tmp_path: Path, side: str
) -> None:
    photos = place / "photos"
    whole = photos_of(bundles.read(plain), photos, "auto", tmp_path / "cache", Silent()).catalog
    for label in whole.classes:
        (tmp_path / "few" / label).mkdir(parents=True)
        of_side = [photo.path for photo in whole.photos if (photo.label, photo.side) == (label, side)]
        for path in of_side[:4]:
            shutil.copy(photos / path, tmp_path / "few" / path)
    if side == "train":
        with pytest.raises(SourceError, match="nothing to judge the export with: 8 photos to learn from, 0 held out"):
            export(plain, "openvino", photos=tmp_path / "few")
    else:  # one of each class might have been the only one that it was learned from
        assert export(plain, "openvino", photos=tmp_path / "few").measured.n == 6


@pytest.mark.parametrize("given", [False, True])
def test_named_photos_of_the_run_beside_it_are_on_the_sides_where_it_had_them(
    given: bool, cache: Path, tmp_path: Path
) -> None:
    photos, table = make_photos(tmp_path / "photos", {"red": 20, "blue": 2, "green": 2}), tmp_path / "photos.csv"
    write_table(
        table, [(path, path.parent.name, "train" if path.stem != "0" else "test") for path in photos.rglob("*.png")]
    )
    tuned = library.tune(
        table if given else photos, cache=cache, out=tmp_path / "run", head="prototype", seed=4, report=False
    )
    run = read_finished(tuned.run, cache)
    moved = photos.rename(tmp_path / "moved")
    noise(9_999, (120, 120, 120)).save(moved / "red" / "new.png")
    shown = photos_of(bundles.read(tuned.bundle), moved, "auto", cache, Silent())
    for rows, of_run in ((shown.held_out, run.outputs.held_out), (shown.learn, run.outputs.train)):
        named = {shown.catalog.photos[i].digest for i in rows if not shown.catalog.photos[i].path.endswith("new.png")}
        assert named == {run.catalog.photos[i].digest for i in of_run.tolist()}
    assert shown.side == ("test" if given else "drawn")


def test_named_photos_are_drawn_where_the_recipe_of_the_run_beside_them_cannot_be_read(
    cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 8, "blue": 8})
    tuned = library.tune(photos, cache=cache, out=tmp_path / "run", head="prototype", report=False)
    (tuned.run / "recipe.toml").write_text('format = 1\nepoch = "two"\n')
    shown = photos_of(bundles.read(tuned.bundle), photos, "auto", cache, Silent())
    assert len(shown.learn) + len(shown.held_out) == 16
    with pytest.raises(RunError, match=r"The photos of the bundle .* are not known") as caught:
        photos_of(bundles.read(tuned.bundle), None, "auto", cache, Silent())
    assert caught.value.why == f"The recipe of the run {tuned.run} cannot be read."


def test_a_worse_form_carries_its_figures(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 20, noise=20)
    bundle = small_bundle(tmp_path / "bundle", photos, brittle=True)
    with pytest.raises(WorseVariant) as caught:
        export(bundle, "onnx-int8", photos=photos)
    assert caught.value.measured.is_worse
    assert "points lower" in caught.value.what


def test_photos_that_are_all_held_out_judge_a_form_that_is_not_calibrated(
    plain: Path, place: Path, tmp_path: Path
) -> None:
    table = tmp_path / "held_out.csv"
    paths = sorted((place / "photos").rglob("*.png"))
    table.write_text("path,label,split\n" + "".join(f"{path},{path.parent.name},test\n" for path in paths))
    assert export(plain, "openvino", photos=table).measured.n == len(paths)
    with pytest.raises(SourceError, match="nothing to calibrate the export with: 0 photos to learn from, 80 held out"):
        export(plain, "onnx-int8", photos=table)


def test_a_form_is_made_on_the_disk_where_it_will_lie(
    plain: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no room here"))
    export(plain, "torch", photos=place / "photos", cache=place / "cache")
    export(plain, "openvino", photos=place / "photos", cache=place / "cache", out=tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "openvino.xml").is_file()
    assert {path.name for path in tmp_path.iterdir()} <= {"bundle", "new", ".bundle.lock"}


def test_a_form_that_was_damaged_is_made_again(place: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(place / "bundle", tmp_path / "bundle")
    (bundle / "openvino.bin").write_bytes(b"damaged")
    assert list(bundles.read(bundle).lost) == ["openvino"]
    export(bundle, "openvino", photos=place / "photos", cache=place / "cache")
    assert (sorted(bundles.read(bundle).variants), [*bundles.read(bundle).lost]) == (["int8", "openvino", "torch"], [])
