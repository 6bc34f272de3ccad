"""A label that something else than the picture tells is found; chance, and what the picture itself shows, is not."""

from __future__ import annotations

import numpy as np
import pytest
from made import catalog_of, facts_with

from rehead.auditing.columns import N_BINS, binned, file_fields
from rehead.auditing.findings import Shortcut
from rehead.auditing.probe import p_better, told_by
from rehead.auditing.shortcuts import shortcuts

N = 200
LABELS = ["a", "b"] * (N // 2)
RANDOM = np.random.default_rng(0)


def found(**columns: object) -> dict[str, Shortcut]:
    facts = facts_with(N, **columns)  # type: ignore[arg-type]
    folds = {i: (i // 2) % 5 for i in range(N)}
    told = shortcuts(catalog_of(LABELS), facts, {i: i % 2 for i in range(N)}, folds)
    return {shortcut.source: shortcut for shortcut in told}


def test_a_quality_that_tells_the_class_is_found_and_named() -> None:
    file = found(quality=[85 + i % 2 for i in range(N)], n_bytes=RANDOM.integers(1e4, 1e5, N).tolist())["file"]
    assert file.is_found
    assert file.accuracy.value == 1
    assert [field.name for field in file.fields] == ["JPEG quality"]


def test_a_shortcut_is_told_as_often_as_the_strongest_field_tells_the_class() -> None:
    random = np.random.default_rng(3)
    noise = {name: random.integers(100, 10_000, N).tolist() for name in ("width", "height", "quality")}
    file = found(**noise, n_bytes=[int(random.integers(1e4, 2e4)) + 40_000 * (i % 2) for i in range(N)])["file"]
    assert file.is_found
    assert file.fields[0].name == "file size"
    assert file.accuracy == file.fields[0].accuracy
    assert file.accuracy.value > 0.95
    assert file.control is not None
    assert file.control.value < 0.6


def test_chance_is_not_found() -> None:
    noise = {name: RANDOM.integers(100, 10_000, N).tolist() for name in ("n_bytes", "width", "height", "quality")}
    rings = {name: [tuple(row) for row in RANDOM.uniform(0, 255, (N, 16))] for name in ("border", "inside")}
    assert not any(shortcut.is_found for shortcut in found(**noise, **rings).values())


def test_bytes_that_the_detail_of_the_picture_explains_are_no_shortcut() -> None:
    detail = [1.0 + i % 2 + RANDOM.uniform(0, 0.9) for i in range(N)]
    explained = found(detail=detail, n_bytes=[int(10_000 * d) for d in detail])["file"]
    assert not explained.is_found
    assert found(n_bytes=[10_000 * (1 + i % 2) for i in range(N)])["file"].is_found


def test_a_border_tells_only_where_the_picture_beside_it_does_not() -> None:
    told = [tuple(RANDOM.uniform(0, 10, 16) + 100 * (i % 2)) for i in range(N)]
    noise = [tuple(RANDOM.uniform(0, 255, 16)) for _ in range(N)]
    assert found(border=told, inside=noise)["border"].is_found
    assert not found(border=told, inside=told)["border"].is_found


def test_too_few_photos_or_one_class_tell_nothing() -> None:
    facts = facts_with(40, quality=list(range(40)))
    folds = {i: i % 5 for i in range(40)}
    assert shortcuts(catalog_of("a" * 40), facts, dict.fromkeys(range(40), 0), folds) == ()
    assert shortcuts(catalog_of("ab" * 5), facts_with(10), {i: i % 2 for i in range(10)}, folds) == ()
    assert shortcuts(catalog_of("ab" * 20), {}, {}, {}) == ()


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (7, 3), (3, 7), (60, 40), (1500, 100)])
def test_the_test_is_the_exact_binomial_one(wins: int, losses: int) -> None:
    from scipy.stats import binomtest

    right = np.array([True] * wins + [False] * losses + [True] * 5)
    other = np.array([False] * wins + [True] * losses + [True] * 5)
    wanted = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue if wins + losses else 1.0
    assert p_better(right, other) == pytest.approx(wanted, rel=1e-6)


def test_bins_hold_as_many_each_and_what_is_missing_has_its_own() -> None:
    codes = binned([*RANDOM.normal(size=1600).tolist(), *[None] * 7])
    counts = np.bincount(codes)
    assert (len(counts), counts[-1]) == (N_BINS + 1, 7)
    assert counts[:-1].min() > 60
    assert binned([None, None]).tolist() == [0, 0]
    assert binned(["x", None, "x", "y"]).tolist() in ([0, 1, 0, 2], [0, 2, 0, 1])


def test_the_order_in_a_folder_counts_only_where_it_holds_several_classes() -> None:
    sorted_by_class = catalog_of(["a"] * 20 + ["b"] * 20)
    assert "folder order" in file_fields(sorted_by_class, range(40), facts_with(40))
    assert "folder order" not in file_fields(catalog_of("a" * 40), range(40), facts_with(40))


def test_a_photo_that_no_fold_holds_out_is_not_told() -> None:
    codes, labels = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1])
    assert told_by([codes], labels, np.array([0, 1, 0, 1, -1])).tolist() == [True] * 4 + [False]
    assert told_by([codes, codes], labels, np.array([0, 1, 0, 1, -1])).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("has_facts", [True, False])
def test_a_class_whose_photos_left_are_all_of_one_fold_is_passed_over(has_facts: bool) -> None:
    n = 40
    labels = {i: i % 2 for i in range(n)} | {n: 2, n + 1: 2}
    folds = {i: (i // 2) % 5 for i in range(n)} | {n: 0, n + 1: -1 if has_facts else 1}
    facts = facts_with(n + 2, quality=[85 + i % 2 for i in range(n + 2)])
    if not has_facts:
        del facts[n + 1]
    told = shortcuts(catalog_of(["a", "b"] * (n // 2) + ["c", "c"]), facts, labels, folds)
    assert [(one.source, one.accuracy.value, one.accuracy.n) for one in told] == [("file", 1, n), ("border", 0.5, n)]
    assert shortcuts(catalog_of("a" * n + "cc"), facts, dict.fromkeys(range(n), 0) | {n: 2, n + 1: 2}, folds) == ()
