"""Batches mixed and erased before a step, at whatever layer they enter the network.

mixup: Zhang et al. 2018. cutmix: Yun et al. 2019. erasing: Zhong et al. 2020, with zeros, which is the mean of normalised
photos. Behind a cut the same is done to maps, as in manifold mixup (Verma et al. 2019).
"""

from __future__ import annotations

import math

import torch

ERASED = (0.02, 0.33)  # share of a map that is erased, as Zhong et al. chose


def mixed(x: torch.Tensor, mixup: float, cutmix: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Each input mixed with another one of the batch, (n, ...); which ones, (n,); the share of its own that was kept.

    mixup, cutmix: parameters of their beta distributions, 0 for none. With both, one of them is drawn for the batch.
    Cutmix needs maps (n, channels, height, width).
    """
    if not mixup and not cutmix:
        return x, torch.arange(len(x), device=x.device), 1.0
    cuts = bool(cutmix) and (not mixup or float(torch.rand(())) < 0.5)
    alpha = cutmix if cuts else mixup
    kept = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(x)).to(x.device)
    if not cuts:
        return kept * x + (1 - kept) * x[other], other, kept
    top, left, height, width = _box(x, 1 - kept, 1.0)
    out = x.clone()
    out[:, :, top : top + height, left : left + width] = x[other, :, top : top + height, left : left + width]
    return out, other, 1 - height * width / (x.shape[2] * x.shape[3])


def erased(x: torch.Tensor, chance: float) -> torch.Tensor:
    """Maps (n, channels, height, width), with this chance for each of them with a box of zeros in it."""
    if not chance:
        return x
    out = x.clone()
    for i in torch.nonzero(torch.rand(len(x)) < chance).flatten().tolist():
        share = float(torch.empty(()).uniform_(*ERASED))
        ratio = math.exp(float(torch.empty(()).uniform_(math.log(0.3), math.log(1 / 0.3))))
        top, left, height, width = _box(x, share, ratio)
        out[i, :, top : top + height, left : left + width] = 0
    return out


def _box(x: torch.Tensor, share: float, ratio: float) -> tuple[int, int, int, int]:
    """A random box that takes this share of the maps, as near as whole cells allow: top, left, height, width."""
    rows, columns = x.shape[2:]
    height = min(rows, round(rows * math.sqrt(share * ratio)))
    width = min(columns, round(columns * math.sqrt(share / ratio)))
    top = int(torch.randint(rows - height + 1, ()))
    left = int(torch.randint(columns - width + 1, ()))
    return top, left, height, width
