"""How long a recipe is said to take: what follows from the pace of one photo."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.nets.backbone import load_backbone
from rehead.nets.cut import Pooled
from rehead.tuning.forecast import AROUND_S, Forecast, Pace, forecast
from rehead.tuning.layers import Stage
from rehead.tuning.pace import step_seconds
from rehead.tuning.plan import Plan
from rehead.tuning.recipe import Recipe

STAGES = [Stage("stem", 10, 30, (8, 4, 4)), Stage("top", 10, 70, (8, 2, 2)), Stage("pool", 0, 0, (8,))]
KEPT, READ = Plan(("top",), "stem"), Plan(("stem", "top"), None)
PACE = Pace(network_s=0.1, decode_s=0.01, step_s=0.3)
PLAIN = Recipe(train="last:1", views=1, watch=0.2, warm_head=False)


def test_what_is_kept_runs_once_up_to_the_cut_and_each_epoch_costs_its_steps() -> None:
    found = forecast(PLAIN, STAGES, KEPT, PACE, n_train=100, n_held_out=50)
    looks = 0.1 * (50 + 20)
    assert found.once_s == pytest.approx(AROUND_S + 150 * (0.01 + 0.3 * 0.1) + looks)
    assert found.epoch_s == pytest.approx(80 * 0.3 + 20 * 0.1)


def test_before_layers_learn_all_photos_are_looked_at_once_more() -> None:
    none = forecast(PLAIN, STAGES, KEPT, PACE, n_train=100, n_held_out=50).once_s
    warm = forecast(replace(PLAIN, warm_head=True), STAGES, KEPT, PACE, n_train=100, n_held_out=50).once_s
    assert warm - none == pytest.approx(0.1 * 150)


def test_views_are_of_training_photos_alone() -> None:
    one = forecast(PLAIN, STAGES, KEPT, PACE, 100, 50).once_s
    four = forecast(replace(PLAIN, views=4, augment="crop"), STAGES, KEPT, PACE, 100, 50).once_s
    assert four - one == pytest.approx(3 * 100 * (0.01 + 0.3 * 0.1))


def test_from_photos_every_look_decodes() -> None:
    slow = forecast(PLAIN, STAGES, READ, replace(PACE, decode_s=1.0), 100, 50)
    assert slow.epoch_s == pytest.approx(80 * 1.3 + 20 * 1.1)


@given(st.floats(0, 100), st.floats(0.01, 100), st.floats(0, 1e4))
def test_epochs_that_fit_take_no_longer_and_one_more_would(once_s: float, epoch_s: float, given_s: float) -> None:
    found = Forecast(once_s, epoch_s)
    n = found.epochs_within(given_s)
    assert n == 0 or found.seconds(n) <= given_s * (1 + 1e-9)
    assert found.seconds(n + 1) >= given_s * (1 - 1e-9)


def test_a_step_is_measured_of_a_network_that_keeps_what_it_computed() -> None:
    network = load_backbone("levit_128s", pretrained=False).network
    assert step_seconds(Pooled(network), (3, 224, 224), 2, "cpu") > 0
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
