"""Photos grow to the network's own size, and never beyond."""

from __future__ import annotations

import timm
from hypothesis import given
from hypothesis import strategies as st

from rehead.pixels import Preprocess
from rehead.tuning.grow import STEP, grown, refused, takes

OWN = Preprocess(height=224, width=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@given(st.floats(0.1, 1), st.integers(1, 30))
def test_sides_rise_in_whole_steps_and_end_at_the_own_one(start: float, n_epochs: int) -> None:
    sides = [size.height for size in grown(OWN, start, n_epochs)]
    assert len(sides) == n_epochs
    assert sides == sorted(sides)
    assert sides[-1] == OWN.height
    assert all(side % STEP == 0 for side in sides)


def test_without_growing_all_epochs_see_the_same() -> None:
    assert grown(OWN, 1.0, 3) == [OWN] * 3


def test_a_side_that_is_no_whole_number_of_steps_stays_as_it_is() -> None:
    odd = Preprocess(height=250, width=250, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert [size.height for size in grown(odd, 0.5, 3)] == [128, 192, 250]


def test_convolutions_take_other_sizes_and_places_of_patches_do_not() -> None:
    small = grown(OWN, 0.5, 2)[0]
    assert takes(timm.create_model("resnet18"), small)
    assert not takes(timm.create_model("vit_tiny_patch16_224"), small)


def test_a_size_that_is_refused_is_found_behind_one_that_is_taken() -> None:
    """Patches of 14 pixels, whole ones alone: 448 are 32 of them, and 480 are not."""
    own = Preprocess(height=518, width=518, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network, sizes = timm.create_model("test_vit", patch_size=14, img_size=518), grown(own, 0.86, 4)
    other = refused(network, sizes)
    assert (sizes[0].height, other and other.height) == (448, 480)
    assert refused(network, [sizes[0], own]) is None
