"""A range test finds the rate, shows its curve, and leaves no trace in what is trained afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import COURSE, feed, job, network, same, tensors

from rehead.errors import RecipeError, RunError
from rehead.progress import Silent
from rehead.tuning import lr_range
from rehead.tuning.lr_range import RangeTest, range_lines, range_svg, range_test, rate_at, smoothed
from rehead.tuning.mlp import train_mlp
from rehead.tuning.range_test import find_rate
from rehead.tuning.recipe import Recipe
from rehead.tuning.train import train_layers

USUAL = 7e-4


def valley(best: float) -> RangeTest:
    """A loss that falls up to a rate and explodes behind it."""
    return range_test(
        lambda _, rate: float(2 - 1.5 * min(1.0, rate / best) + (100 * (rate / best - 1) if rate > best else 0)),
        lambda n: None,
        USUAL,
    )


@pytest.mark.parametrize("best", [1e-4, 1e-2, 0.3])
def test_the_rate_is_about_a_tenth_of_where_the_loss_is_least(best: float) -> None:
    assert 0.05 * best < valley(best).lr < 0.3 * best


def test_where_no_rate_is_better_the_highest_that_does_no_harm_counts() -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, lr_range.N_BATCHES)
    flat = range_test(lambda n, rate: float(0.2 + noise[n] + (10 * rate if rate > 1e-2 else 0)), lambda n: None, USUAL)
    assert 5e-4 < flat.lr < 3e-3


def test_one_lucky_batch_at_the_beginning_decides_nothing() -> None:
    lucky = range_test(
        lambda n, rate: 0.05 if n == 0 else float(0.3 + (10 * rate if rate > 1e-2 else 0)), lambda n: None, USUAL
    )
    assert 5e-4 < lucky.lr < 3e-3


def test_where_the_loss_rises_from_the_first_rate_on_the_usual_one_is_taken_and_that_is_said() -> None:
    rising = range_test(lambda n, _: 0.3 * 1.02**n, lambda n: None, USUAL)
    assert rising.lr == USUAL
    assert "the usual one" in range_lines(rising)[0]
    assert "the usual one" not in range_lines(valley(1e-2))[0]


def test_where_the_loss_still_falls_at_the_highest_rate_the_usual_one_is_taken_and_that_is_said() -> None:
    falling = range_test(lambda n, _: 2 * 0.97**n, lambda n: None, USUAL)
    assert falling.lr == USUAL
    assert "no rate was too high for the loss" in range_lines(falling)[0]


def test_it_ends_where_the_loss_diverges_or_is_no_number() -> None:
    assert len(valley(1e-3).rates) < lr_range.N_BATCHES
    broken = range_test(lambda n, rate: float("nan") if n == 30 else 1.0, lambda n: None, USUAL)
    assert len(broken.losses) == 30
    with pytest.raises(RunError, match="before anything is learned"):
        range_test(lambda n, rate: float("nan"), lambda n: None, USUAL)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=80))
def test_any_curve_gives_a_rate_lines_and_a_dict_that_reads_back(losses: list[float]) -> None:
    test = RangeTest.of([rate_at(n) for n in range(len(losses))], losses, USUAL)
    assert lr_range.LOWEST <= test.lr <= lr_range.HIGHEST
    assert RangeTest.from_dict(test.to_dict()) == test
    words, curve, mark = range_lines(test)
    assert max(len(curve), len(mark)) <= 80
    assert f"{test.lr:.1e}" in words
    assert "↑" in mark


def test_smoothing_a_constant_gives_the_constant() -> None:
    assert smoothed([0.7] * 20) == pytest.approx([0.7] * 20)


def test_the_picture_is_a_picture() -> None:
    assert ElementTree.fromstring(range_svg(valley(1e-2))).tag.endswith("svg")
    assert "loss, squared" in range_svg(valley(1e-2), "squared")


def test_training_after_a_range_test_ends_with_the_same_bits_as_without() -> None:
    course = replace(COURSE, norm="adapt", mixup=0.4, average=0.9)
    tried, plain = network(), network()
    before = tensors(tried)
    generator = torch.random.get_rng_state()
    first = find_rate(job(tried, course), lambda n: None)
    assert same(before, tensors(tried))
    assert torch.equal(generator, torch.random.get_rng_state())
    assert all(p.grad is None for p in tried.parameters())
    assert find_rate(job(tried, course), lambda n: None) == first
    train_layers(job(tried, course))
    train_layers(job(plain, course))
    assert same(tensors(tried), tensors(plain))


def test_another_seed_sees_other_batches() -> None:
    one, other = (find_rate(job(network(), replace(COURSE, seed=seed)), lambda n: None) for seed in (0, 1))
    assert one.losses != other.losses


def test_a_handful_of_photos_is_enough() -> None:
    assert find_rate(job(network(), learn=np.arange(5)), lambda n: None).lr > 0


def test_a_range_test_for_an_mlp_tells_its_curve_and_trains_with_its_rate() -> None:
    told: list[str] = []

    class Listener(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    features = feed()._views[0].reshape(60, -1).astype(np.float32)
    settings = {"hidden": (8,), "epochs": 3, "batch_size": 8, "activation": "relu", "class_weight": None, "seed": 0}
    found, _, _ = train_mlp(features, feed().labels, 2, lr="auto", device="cpu", progress=Listener(), **settings)
    rate = float(told[0].split()[2].rstrip(","))
    named, _, _ = train_mlp(features, feed().labels, 2, lr=rate, device="cpu", progress=Silent(), **settings)
    assert all(
        np.array_equal(a, b)
        for one, two in zip(found.layers, named.layers, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("head", ["linear", "prototype", "auto"])
def test_a_head_that_is_solved_has_no_rate_to_find(head: str) -> None:
    with pytest.raises(RecipeError, match="--lr auto has nothing to find with --train head"):
        Recipe(lr="auto", head=head)


def test_a_recipe_with_auto_reads_back_and_other_words_are_refused() -> None:
    recipe = Recipe(lr="auto", train="last:1")
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    with pytest.raises(RecipeError, match="--lr must be between"):
        Recipe(lr="fast", train="last:1")


def test_a_job_that_goes_on_uses_the_rate_that_was_found_and_tests_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rehead.phase import _found_rate
    from rehead.runs.folder import RunFolder
    from rehead.runs.record import Record
    from rehead.tuning import range_test as steps

    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "network")
        run.write("recipe.toml", "")
        run.write("verdict.json", "")
        first = _found_rate(job(network()), Record(run, Silent(), 36), Silent())
        monkeypatch.setattr(steps, "find_rate", None)
        assert _found_rate(job(network()), Record(run, Silent(), 36), Silent()) == first
        assert {"lr_range.svg", "lr_range.json"} <= {path.name for path in run.path.iterdir()}
