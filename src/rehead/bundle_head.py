"""The head of a bundle, from the file in which it lies by itself: checked, as a bundle may be anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Activation, Head, Kind
from rehead.bundle_facts import AGAIN, FACTS, HEAD, read_facts, unreadable, what_is_named
from rehead.errors import BundleError


def read_head(folder: Path) -> Head:
    """The head of the bundle in `folder`, from its `head.safetensors`. Raises BundleError for what is none, or is another
    model's: its last layer has not a row for each output."""
    facts, path = read_facts(folder), folder / HEAD
    _, classes, _ = what_is_named(facts, folder / FACTS)
    kind, activation = (facts["head"].get(name) for name in ("kind", "activation"))
    if kind not in get_args(Kind) or activation not in get_args(Activation):
        raise BundleError(
            what=f"The head in {folder / FACTS} is of kind {kind!r} with the activation {activation!r}.",
            why=f"Known are {', '.join(get_args(Kind))}; {', '.join(get_args(Activation))}.",
            fix=AGAIN,
        )
    tensors = _tensors(path)
    names = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(len(tensors) // 2)]
    if not names or set(tensors) != {name for pair in names for name in pair}:
        raise _no_head(
            path, f"It holds {', '.join(tensors) or 'nothing'}, not layers.0.weight, layers.0.bias and so on."
        )
    layers = tuple((tensors[weight], tensors[bias]) for weight, bias in names)
    if any(x.dtype != np.float32 for layer in layers for x in layer) or not _chain(layers, max(1, len(classes))):
        shapes = ", ".join(f"{x.dtype} {x.shape}" for layer in layers for x in layer)
        raise _no_head(
            path, f"It holds {shapes}, which are no dense layers of float32 with {max(1, len(classes))} outputs."
        )
    return Head(kind, layers, activation)


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except OSError as error:
        raise unreadable(path, error) from error
    except (
        SafetensorError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # the last three: of numbers that NumPy lacks
        raise _no_head(path, f"{error}.") from error


def _chain(layers: tuple[tuple[NDArray[Any], NDArray[Any]], ...], n_outputs: int) -> bool:
    """Whether each takes what the one before gives, and the last gives so many."""
    if any(weight.ndim != 2 or bias.shape != weight.shape[:1] or 0 in weight.shape for weight, bias in layers):
        return False
    taken, given = [weight.shape[1] for weight, _ in layers[1:]], [len(bias) for _, bias in layers]
    return [*taken, n_outputs] == given


def _no_head(path: Path, why: str) -> BundleError:
    return BundleError(what=f"{path} is not the head of its bundle.", why=why, fix=AGAIN)
