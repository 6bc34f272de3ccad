"""Low-rank adapters: they begin as nothing, alone learn beside the head, and end as a part of the weights."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rehead
from rehead.errors import RecipeError, UnknownLayer
from rehead.nets.backbone import Backbone
from rehead.nets.cut import Pooled
from rehead.tuning.checkpoint import FILE, read_checkpoint, write_checkpoint
from rehead.tuning.feed import StoredFeed
from rehead.tuning.layers import Stage, adapters_in, layers_that_learn
from rehead.tuning.lora import Adapters, add_adapters, linear_layers
from rehead.tuning.plan import described, planned
from rehead.tuning.recipe import Recipe
from rehead.tuning.train import Training, train_layers

COURSE = replace(Recipe().course, epochs=2, batch_size=4, lr=0.01)
CUTS = {"vit_tiny_patch16_224": ("blocks.9", (17, 192)), "swin_tiny_patch4_window7_224": ("layers.2", (14, 14, 384))}
SMALL = {"vit_tiny_patch16_224": {"img_size": 64, "input_size": 64}}  # 16 tokens instead of 196: quick


class Killed(Exception):
    pass


def network(name: str) -> Backbone:
    return rehead.backbone(name, pretrained=False, **SMALL.get(name, {}))


def adapted(name: str, seed: int = 0) -> tuple[Backbone, nn.Sequential, Adapters]:
    """A network, what lies behind its cut with a head on it, and the adapters in it."""
    backbone, (cut, _) = network(name), CUTS[name]
    names = [layer.name for layer in backbone.layers]
    paths = linear_layers(backbone.chain, names)
    body = backbone.suffix(cut)
    learning = [name for name in names[names.index(cut) + 1 :] if name in paths]
    adapters = add_adapters(body, [[*paths[name]] for name in learning], 4, seed)
    torch.manual_seed(1)
    return backbone, nn.Sequential(body, nn.Linear(backbone.card.shape[0], 2)), adapters


def job(name: str, model: nn.Sequential, adapters: Adapters, **changes: Any) -> Training:
    random = np.random.default_rng(0)
    maps = random.normal(size=(10, *CUTS[name][1])).astype(np.float16)
    settings: dict[str, Any] = {
        "model": model, "groups": [*adapters.groups, list(model[1].parameters())], "n_classes": 2, "device": "cpu",
        "feed": StoredFeed([maps], np.arange(10) % 2, seed=0), "course": COURSE, "learn": np.arange(8),
        "watch": np.arange(8, 9), "report": lambda facts: None, "save": lambda state: None, "due": lambda: False,
        "progress": lambda n, text: None, "note": lambda text: None,
    }  # fmt: skip
    return Training(**{**settings, **changes})


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module", params=CUTS)
def trained(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What there was of a network before adapters learned, after, and after they were merged."""
    name = request.param
    backbone, model, adapters = adapted(name)
    x = torch.randn(3, *CUTS[name][1], generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {"x": x, "name": name, "plain": tensors(backbone.network), "before": tensors(model)}
    with torch.inference_mode():
        found["first"] = model[0](x)
    train_layers(job(name, model, adapters))
    found |= {"after": tensors(model), "frozen": tensors(backbone.network)}
    with torch.inference_mode():
        found["learned"] = model[0](x)
    adapters.merge()
    return {**found, "model": model, "backbone": backbone}


def test_a_network_with_new_adapters_gives_the_same_bits(trained: dict[str, Any]) -> None:
    with torch.inference_mode():
        assert torch.equal(trained["first"], network(trained["name"]).suffix(CUTS[trained["name"]][0])(trained["x"]))


def test_only_adapters_and_the_head_learn(trained: dict[str, Any]) -> None:
    names = changed(trained["before"], trained["after"])
    assert names == {name for name in trained["before"] if ".lora_" in name or name.startswith("1.")}
    assert not changed(trained["plain"], trained["frozen"])


def test_merged_weights_give_what_the_adapters_gave_and_nothing_is_left_of_them(trained: dict[str, Any]) -> None:
    with torch.inference_mode():
        merged = trained["model"][0](trained["x"])
    torch.testing.assert_close(merged, trained["learned"], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(merged, trained["first"], atol=1e-3)
    assert not any("lora" in name or "base_layer" in name for name, _ in trained["model"].named_modules())
    assert trained["plain"].keys() == tensors(trained["backbone"].network).keys()


def test_after_merging_only_weights_of_linear_layers_behind_the_cut_are_others(trained: dict[str, Any]) -> None:
    cut, _ = CUTS[trained["name"]]
    layers = trained["backbone"].layers
    names = [layer.name for layer in layers]
    behind = names[names.index(cut) + 1 :]
    paths = linear_layers(trained["backbone"].chain, names)
    wanted = {f"{path}.weight" for name in behind if name in paths for path in paths[name]}
    assert changed(trained["plain"], tensors(trained["backbone"].network)) == wanted


@pytest.mark.slow
def test_going_on_from_any_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    _, whole, adapters = adapted(name)
    train_layers(job(name, whole, adapters))
    adapters.merge()
    for batches in (1, 3):  # of the 4
        counter = itertools.count(1)

        def told(n: int, text: str, counter: Any = counter, batches: int = batches) -> None:
            if next(counter) > batches:
                raise Killed

        save = lambda state: write_checkpoint(tmp_path, state)  # noqa: E731
        _, model, adapters = adapted(name)
        with pytest.raises(Killed):
            train_layers(job(name, model, adapters, save=save, due=lambda: True, progress=told))
        state = read_checkpoint(tmp_path)
        assert state is not None
        learned = [n for n in state.tensors if n.startswith("model.")]
        assert all(".lora_" in n or n.startswith("model.1.") for n in learned), "a checkpoint holds what learns alone"
        _, resumed, adapters = adapted(name)
        train_layers(job(name, resumed, adapters), state)
        adapters.merge()
        assert not changed(tensors(whole), tensors(resumed)), batches
        (tmp_path / FILE).unlink()


def test_a_first_step_that_moves_only_the_second_matrices_is_no_news() -> None:
    _, model, adapters = adapted("vit_tiny_patch16_224")
    told: list[str] = []
    course = replace(COURSE, epochs=1, weight_decay=0.0)
    train_layers(job("vit_tiny_patch16_224", model, adapters, course=course, note=told.append))
    assert told == []


def test_a_checkpoint_of_another_rank_is_of_other_parameters() -> None:
    backbone = network("vit_tiny_patch16_224")
    model = nn.Sequential(backbone.suffix("blocks.10"), nn.Linear(192, 2))
    add_adapters(model[0], [["blocks.11.attn.qkv"]], 2, 0)
    assert all("rank2" in name for name, _ in model.named_parameters() if "lora" in name)


def test_a_seed_decides_the_first_numbers_and_no_other_dice_are_thrown() -> None:
    def first(seed: int) -> torch.Tensor:
        return adapted("vit_tiny_patch16_224", seed)[2].groups[0][0].detach()

    state = torch.random.get_rng_state()
    one, again, other = first(0), first(0), first(1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    torch.random.set_rng_state(state)
    expected = torch.rand(3)
    torch.random.set_rng_state(state)
    backbone = network("vit_tiny_patch16_224")
    add_adapters(Pooled(backbone.network), [["blocks.0.mlp.fc1"]], 2, 0)
    assert torch.equal(torch.rand(3), expected)


def test_adapters_are_beside_linear_layers_that_are_called_below_the_head() -> None:
    vit = linear_layers(network("vit_tiny_patch16_224").chain, ["stem", "blocks.3", "head"])
    wanted = {"attn.qkv": 768, "attn.proj": 384, "mlp.fc1": 960, "mlp.fc2": 960}
    assert vit["blocks.3"] == {f"blocks.3.{path}": width for path, width in wanted.items()}
    assert vit["stem"] == {}
    assert "head" not in vit
    eva = linear_layers(network("eva02_tiny_patch14_224").chain, ["blocks.0"])
    assert [*eva["blocks.0"]] == [f"blocks.0.{path}" for path in ("attn.proj", "mlp.fc1", "mlp.fc2")]


STAGES = [
    Stage("stem", 10, 1, (32, 14, 14)), Stage("blocks.0", 10, 1, (196, 8), 100), Stage("blocks.1", 10, 1, (196, 8), 50),
    Stage("pool", 0, 0, (8,)), Stage("head", 10, 0, (2,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("lora:8", ("blocks.0", "blocks.1")),
        ("lora:4@last:1", ("blocks.1",)),
        ("lora:4@stem,blocks.0", ("blocks.0",)),
        ("lora:16@blocks.0-1,head", ("blocks.0", "blocks.1")),
    ],
)
def test_adapters_are_asked_for_by_rank_and_layers(spec: str, wanted: tuple[str, ...]) -> None:
    assert layers_that_learn(spec, STAGES) == wanted


@pytest.mark.parametrize("spec", ["lora", "lora:", "lora:0", "lora:x", "lora:8@", "lora:8last:2", "lora:99999"])
def test_adapters_without_a_rank_are_refused_with_an_example(spec: str) -> None:
    with pytest.raises(RecipeError, match="names no rank") as error:
        adapters_in(spec)
    assert "--train lora:8" in error.value.fix


def test_adapters_find_no_place_in_convolutions_or_the_head() -> None:
    plain = [replace(stage, linear=0) for stage in STAGES]
    with pytest.raises(RecipeError) as error:
        layers_that_learn("lora:8", plain)
    assert error.value.what == "--train lora:8 finds no attention or linear layer to adapt."
    assert "made of convolutions" in error.value.why
    for spec in ("lora:8@stem", "lora:8@head"):
        with pytest.raises(RecipeError) as error:
            layers_that_learn(spec, STAGES)
        assert error.value.fix == "For example: --train lora:8@blocks.1"
    with pytest.raises(UnknownLayer, match="blokcs"):
        layers_that_learn("lora:8@blokcs.1", STAGES)


def test_what_learns_is_told_with_the_adapters_parameters_and_the_cut_lies_below_them(tmp_path: Path) -> None:
    recipe = Recipe(train="lora:8@last:1")
    plan = planned(recipe, STAGES, 10, tmp_path)
    assert plan.cut == "blocks.0"
    lines = described(STAGES, plan, recipe, 10)
    assert "frozen, 400 in adapters learn" in next(line for line in lines if "blocks.1" in line)
    assert next(line for line in lines if "blocks.0" in line).endswith("frozen")
