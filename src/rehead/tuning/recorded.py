"""The gradient of a batch recorded once on CUDA and replayed for every batch of its kind, see `features/cuda_graphs.py`.

Dice are thrown anew in each replay, from the seed that is set then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rehead.features.cuda_graphs import recorded

Labels = tuple[torch.Tensor, torch.Tensor]
Gradient = Callable[[torch.Tensor, Labels, "float | torch.Tensor"], torch.Tensor]


class Recorded:
    """gradient: of inputs (n, ...), their labels and how much of its own an input kept, a mean loss (); it leaves gradients in
    `parameters`, which have none before. x, labels, kept: as it will be asked for, whatever they hold; kept is None
    where nothing is ever mixed. Raises RuntimeError where it cannot be recorded."""

    def __init__(
        self,
        gradient: Gradient,
        parameters: Sequence[torch.nn.Parameter],
        x: torch.Tensor,
        labels: Labels,
        kept: torch.Tensor | None,
    ) -> None:
        self._x, self._labels, self._kept = torch.empty_like(x), (labels[0].clone(), labels[1].clone()), kept
        try:
            self._graph, self._loss = recorded(
                lambda: gradient(self._x, self._labels, 1.0 if self._kept is None else self._kept), x.device
            )
            self._gradients = [parameter.grad for parameter in parameters]
        finally:
            for parameter in parameters:
                parameter.grad = None

    def __call__(
        self, x: torch.Tensor, labels: Labels, kept: float
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        """The loss of a batch, and each parameter's gradient, which the next batch's takes the place of."""
        self._x.copy_(x)
        for ours, theirs in zip(self._labels, labels, strict=True):
            ours.copy_(theirs)
        if self._kept is not None:
            self._kept.fill_(kept)
        self._graph.replay()
        return self._loss.clone(), self._gradients
