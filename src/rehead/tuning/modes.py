"""What learns and what does not, decided in one place: names in, `requires_grad` and the mode of each module set."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rehead.errors import RecipeError


def learning(model: nn.Module, train: nn.Module | Iterable[nn.Module | nn.Parameter] | None) -> set[str]:
    """The names of the model's parameters that are among those of `train`; all when it is None.

    Raises RecipeError when there is none, or when `train` has parameters that are not the model's.
    """
    parts = [model] if train is None else [train] if isinstance(train, nn.Module) else list(train)
    if strange := next((part for part in parts if not isinstance(part, nn.Module | torch.Tensor)), None):
        raise RecipeError(
            what=f"train= holds {strange!r}, which is no part of a model.",
            fix="Pass modules or parameters of the model, such as train=model[1:].",
        )
    wanted_ids = {id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])}
    names = {name for name, p in model.named_parameters() if id(p) in wanted_ids}
    if not names:
        raise RecipeError(
            what="Nothing is left to train.",
            why="None of the model's parameters is among those of train=."
            if wanted_ids
            else "train= has no parameters.",
            fix="Pass a part of the model that has parameters, such as train=model[1:].",
        )
    foreign = len(wanted_ids) - len({id(p) for name, p in model.named_parameters() if name in names})
    if foreign:
        raise RecipeError(
            what=f"{foreign} of the tensors of train= are no parameters of the model.",
            fix="Pass a part of the very model that is fitted, such as train=model[1:].",
        )
    return names


def set_modes(model: nn.Module, names: set[str], norm: str = "frozen") -> None:
    """Only the parameters `names` learn; a module without any of them, at any depth, behaves as in prediction.

    norm: "frozen" keeps the statistics of normalisation layers in learning modules too, "adapt" lets them follow.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    learns = {module for module in model.modules() if any(p.requires_grad for p in module.parameters())}
    model.eval()
    for module in model.modules():
        is_between = not any(True for _ in module.parameters())  # dropout and the like: as what stands around it
        keeps = isinstance(module, _BatchNorm) and norm == "frozen"
        if (module in learns or is_between) and not keeps:
            module.training = True
    for module in model.modules():
        if module not in learns and any(True for _ in module.parameters()):
            module.eval()


def adapt_norms(model: nn.Module, learning: Iterable[nn.Module], batches: Iterable[torch.Tensor]) -> None:
    """Gives the batch norms in those modules of the model the statistics of these inputs, the mean over all batches, and leaves
    the model in eval mode."""
    norms = [module for part in learning for module in part.modules() if isinstance(module, _BatchNorm)]
    momentum = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    with torch.no_grad():
        for x in batches:
            model(x)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.eval()
