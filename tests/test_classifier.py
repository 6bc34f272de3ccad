"""`rehead.Classifier` where it is asked for too much: the errors scikit-learn's users expect."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import noise
from PIL import Image
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

import rehead
from rehead import unlabelled
from rehead.errors import RecipeError, RunError, SourceError
from rehead.tuning.recipe import Recipe

PHOTOS = [noise(i, (200, 60, 60)) for i in range(4)]


def test_one_that_was_not_fitted_says_so() -> None:
    with pytest.raises(NotFittedError):
        rehead.Classifier().predict(PHOTOS)


def test_photos_and_labels_of_different_numbers_are_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[4, 3\]"):
        rehead.Classifier(cache=cache).fit(PHOTOS, ["a", "b", "a"])


def test_a_single_class_is_refused(cache: Path) -> None:
    with pytest.raises(RunError, match="A classifier needs photos of at least two classes; all 4 are 'red'"):
        rehead.Classifier(cache=cache).fit(PHOTOS, ["red"] * 4)


@pytest.mark.parametrize("bad", ["gone.png", "broken.png", b"no picture"])
def test_a_photo_that_cannot_be_read_is_named_without_options_of_the_command_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    PHOTOS[0].save("whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    with pytest.raises(SourceError) as caught:
        rehead.Classifier(cache=cache).fit([*PHOTOS, bad], ["a", "b", "a", "b", "a"])
    assert caught.value.what.startswith(f"{bad} " if isinstance(bad, str) else "image 4 ")
    assert "--" not in str(caught.value)


def test_a_fit_that_nothing_decides_on_is_refused(cache: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        rehead.Classifier(fit_="auto", cache=cache).fit(PHOTOS, ["a", "b", "a", "b"])
    assert caught.value.what == "Here nothing decides which fit is best for these photos."
    assert caught.value.fix == "Name one in place of auto: crop, pad or squash."


def test_photos_that_are_files_are_not_all_held(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.bmp" for i in range(12)]
    for i, path in enumerate(paths):
        noise(i, (200, 60, 60)).resize((600, 600)).save(path)
    size, real, held, before = paths[0].stat().st_size, unlabelled.extract_missing, [], 0

    def extract_missing(*given: Any) -> Any:
        held.append(tracemalloc.get_traced_memory()[0] - before)
        return real(*given)

    monkeypatch.setattr(unlabelled, "extract_missing", extract_missing)
    recipe = Recipe()
    unlabelled.features_of(PHOTOS, recipe, cache=cache)  # what is loaded once
    held.clear()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        digests, features = unlabelled.features_of([*paths, paths[0].read_bytes()], recipe, cache=cache)
    finally:
        tracemalloc.stop()
    assert held[0] < 3 * size  # of the one that was given as bytes, and as it is read
    assert digests[0] == digests[-1]
    assert (features[0] == features[-1]).all()


def test_a_photo_that_changes_while_others_are_read_is_named_and_leaves_no_features(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, real = [tmp_path / f"{i}.bmp" for i in range(2)], unlabelled.extract_missing
    for i, path in enumerate(paths):
        noise(20 + i, (200, 60, 60)).save(path)
    before = paths[1].read_bytes()

    def extract_missing(*given: Any) -> Any:
        noise(30, (60, 60, 200)).save(paths[1])
        return real(*given)

    monkeypatch.setattr(unlabelled, "extract_missing", extract_missing)
    with pytest.raises(SourceError, match=r"1\.bmp is another picture than it was"):
        unlabelled.features_of(paths, Recipe(), cache=cache)
    monkeypatch.setattr(unlabelled, "extract_missing", real)
    paths[1].write_bytes(before)
    found = unlabelled.features_of(paths, Recipe(), cache=cache)[1]
    wanted = unlabelled.features_of(paths, Recipe(), cache=tmp_path / "cache")[1]
    assert (found == wanted).all()


def test_one_that_was_not_fitted_is_known_as_such_by_scikit_learn(cache: Path) -> None:
    model = rehead.Classifier(cache=cache)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(PHOTOS, ["a", "b", "a", "b"]))


def test_one_whose_second_fit_fails_is_as_it_was(cache: Path) -> None:
    model = rehead.Classifier(cache=cache).fit(PHOTOS, ["a", "b", "a", "b"])
    named = model.predict(PHOTOS).tolist()
    with pytest.raises(SourceError):
        model.fit([*PHOTOS, "gone.png"], ["c", "d", "c", "d", "c"])
    assert model.predict(PHOTOS).tolist() == named
    assert set(named) <= {"a", "b"}


def test_labels_in_one_column_are_taken_with_a_word(cache: Path) -> None:
    column = np.array([["a"], ["b"], ["a"], ["b"]])
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        model = rehead.Classifier(cache=cache).fit(PHOTOS, column)
    assert model.classes_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.eye(2)[[0, 1, 0, 1]], "y should be a 1d array"),
        ([0.5, 1.5, 0.25, 2.0], "continuous"),
        (["a", "b", None, "a"], "Label 2 is missing"),
        (["a", "b", "a", float("nan")], "Label 3 is missing"),
        ([1, 2, None, 1], "Label 2 is missing"),
        (pd.Series(["a", pd.NA, "b", "a"], dtype="string"), "Label 1 is missing"),
    ],
)
def test_labels_that_are_not_one_class_each_are_refused(cache: Path, labels: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rehead.Classifier(cache=cache).fit(PHOTOS, labels)


@pytest.mark.parametrize(
    "photo",
    ["cat.jpg", Path("cat.jpg"), b"cat", PHOTOS[0], np.asarray(PHOTOS[0]), torch.zeros(3, 8, 8, dtype=torch.uint8)],
)
def test_a_photo_that_is_in_no_list_is_not_taken_apart(cache: Path, photo: Any) -> None:
    with pytest.raises(SourceError) as caught:
        unlabelled.features_of(photo, Recipe(), cache=cache)
    assert caught.value.what == f"Several photos are wanted, and this is one: {type(photo).__name__}."
    assert caught.value.fix == "Pass a list: predict([photo])."


def test_a_stack_of_grey_pictures_is_several(cache: Path) -> None:
    stack = np.stack([np.asarray(photo.convert("L")) for photo in PHOTOS])
    assert len(unlabelled.features_of(stack, Recipe(), cache=cache)[0]) == 4


def closed() -> Image.Image:
    picture = noise(9, (60, 60, 200))
    picture.close()
    return picture


@pytest.mark.parametrize("bad", [closed(), torch.zeros(3, 8, 8, dtype=torch.bfloat16), object()])
def test_a_picture_that_holds_no_pixels_is_named_by_its_place(cache: Path, bad: Any) -> None:
    with pytest.raises(SourceError, match=r"^image 4"):
        rehead.Classifier(cache=cache).fit([*PHOTOS, bad], ["a", "b", "a", "b", "a"])
