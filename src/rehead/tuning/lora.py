"""Low-rank adapters on a network's linear layers, by peft: what learns is two thin matrices beside each frozen weight.

The method is LoRA (Hu et al. 2021): a layer gives W x + (ALPHA / rank) B A x, where A begins at random and B at zero, so
that the network begins as it was. After training the product is added to W, and nothing of the adapters is left. Which
layers have them is left to `layers.py`, the training to `train.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import nn

from rehead.ambient import dice
from rehead.data.split import seed_for
from rehead.errors import Defect, MissingExtra
from rehead.nets.chain import HEAD, POOL, Chain

ALPHA = 8  # Hu et al. 2021: one number for all ranks, the first rank they tried; 8 in their table 9 for RoBERTa

WANTED_FOR = "Training low-rank adapters (--train lora:8)"


@dataclass(frozen=True)
class Adapters:
    """groups: the parameters that learn, layer by layer. merge: adds them to the weights and takes them out again."""

    groups: Sequence[Sequence[nn.Parameter]]
    merge: Callable[[], Any]


def linear_layers(chain: Chain, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The linear layers in these layers of a network, those below the head: of each the paths, with inputs and outputs summed.

    Of a rank r, adapters have r times that many parameters. Linear layers that a network does not call, but whose weight
    it uses in code of its own (the joint query, key and value of EVA-02, BEiT and Swin v2), are not among them: an
    adapter would not be run.
    """
    return {name: _linear(chain[name]) for name in names if name not in (POOL, HEAD)}


def add_adapters(body: nn.Module, paths: Sequence[Sequence[str]], rank: int, seed: int) -> Adapters:
    """Puts an adapter beside each of these linear layers; the body gives the same as before, to the last bit.

    body: a module around the network or a piece of it. paths: in the network, layer by layer. seed: of A's numbers.
    Raises MissingExtra without peft, and Defect when it puts adapters elsewhere.
    """
    LoraConfig, LoraModel = peft()  # noqa: N806  # classes
    (network,) = body.children()
    wanted = [path for layer in paths for path in layer]
    config = LoraConfig(r=rank, lora_alpha=ALPHA, target_modules="|".join(map(re.escape, wanted)))
    with dice(seed_for(seed, "adapters")):
        tuner = LoraModel(network, config, f"rank{rank}")  # its name is in the parameters' names, so in checkpoints
    by_path: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        path, is_adapter, _ = name.partition(".lora_")
        if is_adapter:
            by_path.setdefault(path, []).append(parameter)
    if by_path.keys() != set(wanted):
        raise Defect(what=f"peft put adapters beside {sorted(by_path)}, not beside {sorted(wanted)}.")
    groups = [[parameter for path in layer for parameter in by_path[path]] for layer in paths]
    return Adapters(groups, functools.partial(tuner.merge_and_unload, safe_merge=True))


def check_peft() -> None:
    """Raises MissingExtra when adapters cannot be trained here; loads nothing."""
    if find_spec("peft") is None:
        raise MissingExtra("peft", "lora", WANTED_FOR)


def peft() -> tuple[Any, Any]:
    """peft's LoraConfig and LoraModel; loading them takes seconds. Raises MissingExtra."""
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise MissingExtra("peft", "lora", WANTED_FOR) from None
    return LoraConfig, LoraModel


def _linear(piece: nn.Module) -> dict[str, int]:
    """Of a traced piece only what it calls is there as a module."""
    layers = {path: module for path, module in piece.named_modules() if isinstance(module, nn.Linear)}
    return {path: layer.in_features + layer.out_features for path, layer in layers.items()}
