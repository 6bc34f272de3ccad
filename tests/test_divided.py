"""The order in which a job takes its photos, and whether a beginning of it is enough, for each task."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_photos
from hypothesis import given
from hypothesis import strategies as st

import rehead
from rehead.bundle_facts import Task
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.data.targets import classes_of, label_for
from rehead.divided import job_order, sides_of
from rehead.errors import RunError
from rehead.tuning.recipe import Recipe


def catalog_of(labels: list[str], task: Task, every: int = 5) -> Catalog:
    """Photos with these labels, one of so many held out."""
    photos = [
        Photo(f"{i}.png", label_for(task, label), "train" if i % every else "valid", hashlib.sha256(b"%d" % i).digest())
        for i, label in enumerate(labels)
    ]
    return Catalog("made", "manifest", photos, classes_of((p.label for p in photos), task), lambda _: b"", task=task)


TAGS = [[name for k, name in enumerate("abcdefgh") if i % (k + 2) == 0] for i in range(1, 401)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("labels", "task", "limit"),
    [
        ([";".join(tags + [f"rare{i}"] * (i in (101, 202, 303))) for i, tags in enumerate(TAGS)], "multilabel", 30),
        ([";".join(tags + ["usual"] * (i != 221)) for i, tags in enumerate(TAGS)], "multilabel", 30),
        (["0"] * 397 + ["1.5", "2.5", "3.5"], "regression", 10),
        (["a"] * 395 + ["b"] * 3 + ["c"] * 2, "classification", 8),
    ],
)
def test_a_small_part_of_the_photos_misses_nothing(labels: list[str], task: Task, limit: int, seed: int) -> None:
    """Labels on one photo, one that all but one photo have, and numbers nearly all of which are the same."""
    catalog, recipe = catalog_of(labels, task), Recipe(seed=seed, limit=limit)
    train, held_out = sides_of(catalog, job_order(catalog, recipe), recipe)
    assert len(train) + len(held_out) == limit
    assert not catalog.unlearnable(train)


@given(st.lists(st.sets(st.sampled_from("abcdef")), min_size=12, max_size=60), st.integers(0, 9), st.integers(1, 12))
def test_the_number_of_photos_that_is_said_to_be_needed_is_enough(sets: list[set[str]], seed: int, limit: int) -> None:
    catalog = catalog_of([";".join(labels) for labels in sets], "multilabel", every=4)
    catalog = replace(
        catalog, classes=tuple(sorted(set(catalog.classes) - {*catalog.unlearnable(catalog.on("train"))}))
    )
    recipe = Recipe(seed=seed, limit=limit)
    try:
        sides_of(catalog, job_order(catalog, recipe), recipe)
    except RunError as error:
        said = re.match(r"Use at least (\d+): raise --limit", error.fix)
        assert said
        assert limit < int(said[1]) <= len(sets)
        sides_of(catalog, job_order(catalog, replace(recipe, limit=int(said[1]))), recipe)


def test_a_label_that_all_have_is_told_apart_from_one_that_none_has() -> None:
    catalog, recipe = catalog_of(["a;b", "a;b", "a;b", "c", ""] * 8, "multilabel"), Recipe()
    with pytest.raises(RunError) as error:
        sides_of(catalog, [0, 1, 2, 5, 6, 7], recipe)
    assert error.value.what == "6 photos are too few to learn and verify 3 labels."
    assert error.value.why == "There is none to learn from of 'c'. All to learn from have 'a', 'b'."


def test_where_enough_were_taken_the_photos_themselves_are_at_fault() -> None:
    catalog, recipe = catalog_of(["a"] * 40 + ["b"], "multilabel", every=7), Recipe()
    with pytest.raises(RunError) as error:
        sides_of(catalog, range(40), recipe)
    assert error.value.fix == "Mend those that cannot be read, or add others like them."


@pytest.mark.parametrize(
    ("settings", "is_ended", "way"),
    [
        ({"limit": 40}, False, "raise --limit"),
        ({"budget_s": 9.0}, False, "raise --budget"),
        ({"limit": 40, "budget_s": 9.0}, True, "raise --limit or --budget, or let it run longer"),
        ({}, True, "let it run longer"),
    ],
)
def test_only_what_kept_photos_out_is_named_as_what_would_bring_more(
    settings: dict[str, Any], is_ended: bool, way: str
) -> None:
    catalog, recipe = catalog_of(["a"] * 40 + ["b"], "multilabel", every=7), Recipe(**settings)
    for n, n_bad, fix in (
        (3, 0, f"Use at least 8: {way}."),
        (7, 1, f"Mend those that cannot be read; or {way}."),
        (39, 0, f"Mend those that cannot be read; or {way}."),
    ):
        with pytest.raises(RunError) as error:
            sides_of(catalog, range(n), recipe, n_bad=n_bad, is_ended=is_ended)
        assert error.value.fix == fix


@pytest.mark.parametrize(
    "settings",
    [
        {"limit": 1000, "budget_s": 600.0},
        {"recipe": "auto"},
        {"train": "last:1", "limit": 8, "budget_s": 600.0},
        {"train": "all", "limit": 1000, "budget_s": 600.0},
    ],
)
@pytest.mark.long
def test_limits_that_kept_no_photo_out_are_not_to_be_raised(
    settings: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos" / "train", {"red": 5, "blue": 1}).parent
    make_photos(photos / "valid", {"blue": 1, "red": 1})
    only = photos / "train" / "blue" / "0.png"
    only.write_bytes(only.read_bytes()[:2000])
    with pytest.raises(RunError, match="7 photos are too few to learn and verify 2 classes") as error:
        rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False, **settings)
    assert error.value.fix == "Mend those that cannot be read, or add others like them."


def test_where_no_photo_was_kept_out_more_of_them_are_no_advice() -> None:
    catalog = catalog_of(["cat", "dog", "cat", "cat", "dog", "cat", "cat", "cat"], "classification", every=4)
    with pytest.raises(RunError) as error:
        sides_of(catalog, [0, 2, 3, 4, 5, 6, 7], Recipe())
    assert error.value.why == "There is none to learn from of 'dog'."
    assert error.value.fix == "Mend those that cannot be read, or add others like them."
