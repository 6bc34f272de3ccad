"""What the settings of a recipe may be, whichever kind of number they are given as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rehead.errors import RecipeError
from rehead.tuning.ranges import WHOLE
from rehead.tuning.recipe import Recipe


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("number", [3, 3.0, np.int64(3), np.uint8(3), np.float64(3)])
def test_a_whole_number_is_kept_as_one_of_whatever_kind_it_is(name: str, number: Any) -> None:
    recipe = Recipe(**{name: number})
    assert type(getattr(recipe, name)) is int
    assert Recipe.from_toml(recipe.to_toml()) == Recipe(**{name: 3})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("number", [2.5, np.float64(2.5), float("nan"), float("inf"), True, "3"])
def test_what_is_no_whole_number_is_refused_where_one_is_counted(name: str, number: Any) -> None:
    with pytest.raises(RecipeError, match=f"--{name.replace('_', '-')} must be "):
        Recipe(**{name: number})


def test_a_part_of_an_epoch_is_told_as_what_it_is() -> None:
    with pytest.raises(RecipeError, match=r"--epochs must be a whole number, between 1 and 100000, not 2\.5"):
        Recipe(epochs=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"head": "auto"}, {"head": "prototype", "train": "last:1"}])
def test_a_head_that_layers_cannot_be_trained_on_is_refused_with_what_can_be_done(settings: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="cannot be trained on with --train last:") as error:
        Recipe.from_preset("balanced", settings)
    assert error.value.fix == "Name --head linear or mlp:1000,256, or learn the head alone: --train head."
    assert Recipe.from_preset("balanced", {**settings, "train": "head"}).head == settings["head"]


def test_the_usual_decay_is_that_of_the_optimiser() -> None:
    """Adam's would be a part of the gradient, and pull weights that the loss says little of to zero."""
    assert [Recipe(optimizer=name).course.weight_decay for name in ("adamw", "adam", "sgd")] == [0.05, 0.0, 1e-4]
    assert Recipe(optimizer="adam", weight_decay=0.01).course.weight_decay == 0.01


def test_norms_that_adapt_want_batches() -> None:
    with pytest.raises(RecipeError, match="--norm adapt needs batches of more than one photo"):
        Recipe(train="last:1", norm="adapt", batch_size=1)
