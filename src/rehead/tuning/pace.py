"""How long layers take for a step, measured on one made-up batch: to know before a training whether there is time for it."""

from __future__ import annotations

import time

import torch
from torch import nn

from rehead.heap import kept
from rehead.tuning.step import computing_in, precision

BATCH = 16  # photos a step, at most: enough for the rate of larger batches on CPU, and soon measured


def step_seconds(body: nn.Module, shape: tuple[int, ...], batch_size: int, device: str) -> float:
    """Seconds that one photo takes forth and back through `body`; the second of two steps counts.

    shape: of one input of the body, without the batch. The body's gradients are gone afterwards, what it learned is not.
    """
    n, place = min(BATCH, batch_size), torch.device(device)
    body = body.to(device).requires_grad_(True)
    batch, took = torch.zeros(n, *shape, device=device), 0.0
    with kept(device):
        for _ in range(2):
            body.eval()  # attention of LeViT and others keeps biases until its mode is set: here with a graph that is gone
            begun = time.monotonic()
            with computing_in(precision(place, is_of_layers=True), place):
                found = body(batch)
            found.float().square().mean().backward()
            if device != "cpu":  # which hands back what it was asked for when that is done
                (torch.mps if device == "mps" else torch.cuda).synchronize()
            took = time.monotonic() - begun
    body.zero_grad(set_to_none=True)
    body.requires_grad_(False)
    return took / n
