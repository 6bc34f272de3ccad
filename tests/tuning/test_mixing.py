"""Batches mixed and erased: what is kept adds up, and each pixel comes from where it is said to."""

from __future__ import annotations

import pytest
import torch

from rehead.errors import RecipeError
from rehead.tuning.layers import Stage
from rehead.tuning.mixing import erased, mixed
from rehead.tuning.plan import Plan, check_mixing
from rehead.tuning.recipe import Recipe


def numbered(n: int = 6, side: int = 10) -> torch.Tensor:
    """Maps that hold their own number everywhere, from 1."""
    return torch.arange(1.0, n + 1).reshape(n, 1, 1, 1).expand(n, 2, side, side).contiguous()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_the_share_kept_is_the_share_of_the_photo_that_is_its_own(seed: int, mixup: float, cutmix: float) -> None:
    torch.manual_seed(seed)
    x = numbered()
    out, other, kept = mixed(x, mixup, cutmix)
    means = out.mean(dim=(1, 2, 3))
    wanted = kept * x[:, 0, 0, 0] + (1 - kept) * x[other, 0, 0, 0]
    assert torch.allclose(means, wanted, atol=1e-5)
    assert 0 <= kept <= 1
    if not mixup:
        assert set(out.unique().tolist()) <= set(x.unique().tolist())
    assert torch.equal(x, numbered())


def test_nothing_is_mixed_or_erased_unless_asked() -> None:
    x = numbered()
    assert mixed(x, 0, 0)[0] is x
    assert erased(x, 0) is x


def test_erased_boxes_lie_in_about_as_many_photos_as_asked_and_take_a_share_as_published() -> None:
    torch.manual_seed(0)
    out = erased(numbered(400, 40), 0.25)
    shares = (out == 0).float().mean(dim=(1, 2, 3))
    assert 70 <= int((shares > 0).sum()) <= 130
    assert float(shares.max()) <= 0.35
    assert float(shares[shares > 0].min()) >= 0.01


@pytest.mark.parametrize(
    ("shape", "size", "is_fine"),
    [
        ((40, 14, 14), (224, 224), True),
        ((197, 192), (224, 224), False),
        ((7, 7, 768), (224, 224), False),
        ((512, 14, 10), (448, 320), True),
        ((14, 10, 512), (448, 320), False),
    ],
)
def test_boxes_are_cut_out_of_maps_alone(shape: tuple[int, ...], size: tuple[int, int], *, is_fine: bool) -> None:
    stages = [Stage("stem", 1, 1, shape), Stage("head", 1, 1, (2,))]
    plan = Plan(("head",), "stem")
    recipe = Recipe(train="all", cutmix=1.0, erase=0.1)
    if is_fine:
        check_mixing(recipe, stages, plan, size)
    else:
        with pytest.raises(RecipeError, match="--cutmix and --erase cannot be used behind stem"):
            check_mixing(recipe, stages, plan, size)
    check_mixing(recipe, stages, Plan(("head",), None), size)
    check_mixing(Recipe(train="all", mixup=0.2), stages, plan, size)
