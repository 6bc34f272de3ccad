"""A pretrained network with its preprocessing: any timm classifier, weights from a package, a file or the hub.

How it is made is left to `making.py`, what its layers are to `chain.py`, how it is cut to `cut.py`, how weights are read to
`weights.py` and `hub.py`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rehead.ambient import own_settings
from rehead.durable import sha256_file
from rehead.errors import BackboneError
from rehead.nets.card import Card, Place, architecture_of, known_as, locate
from rehead.nets.chain import POOL, Chain, Layer
from rehead.nets.cut import Pooled, prefix_of, suffix_of
from rehead.nets.hub import fetch_weights
from rehead.nets.making import check_runs, created, preprocess_of
from rehead.nets.weights import Lacking, classifier_names, load_into, matched, read_weights
from rehead.pixels import Preprocess


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode that is a chain of named layers: backbone[:-2] are all but its last two, as a module.

    Where the head reads more than the pooled features, as with two tokens, it is handed out only with `pool`, by
    backbone[-2:]; alone, and where the layers are gone through one by one, UnknownLayer is raised for it.

    weights: SHA-256 of their file. cut: the layer up to which they are known to be complete. loaded: how they were
    matched. lacking: tensors that they do not have, which hold random numbers, or have in another shape; not those of a new
    classifier that was asked for by num_classes. preprocess: how a picture becomes its input.
    """

    name: str
    architecture: str
    network: nn.Module
    preprocess: Preprocess
    weights: str
    origin: str
    licence: str
    arguments: Mapping[str, Any]
    cut: str
    loaded: str
    lacking: Lacking

    @functools.cached_property
    def chain(self) -> Chain:
        """The network taken apart. Raises BackboneError when that cannot be done."""
        size = (self.preprocess.height, self.preprocess.width)
        return Chain(self.network, size)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The stages a person would name, in order of data flow, `pool` and `head` last."""
        return self.chain.layers

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[place] for place in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return any(layer.name == name for layer in self.layers)

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(layer.name for layer in self.layers)}>"

    def __getitem__(self, which: int | str | slice) -> nn.Module:
        """backbone[:-2], backbone[:"pool"], backbone["layer3":"pool"], backbone["layer4"]: a module that shares the
        network's parameters. Raises UnknownLayer, and BackboneError where the weights of a layer are not known."""
        module = self.chain[which]
        if self.cut not in (POOL, self.layers[-1].name):
            own = {id(p) for p in self.chain.piece(-1, self.chain.place(self.cut)[1]).parameters()}
            if any(id(p) not in own for p in module.parameters()):
                raise BackboneError(
                    what=f"These layers reach beyond {self.cut!r}, where the weights of {self.origin} end.",
                    fix=f'Take layers up to it, such as backbone[: "{self._next(self.cut)}"].',
                )
        if lacking := [name for name in module.state_dict() if name in self.lacking]:
            raise self._incomplete(lacking[0])
        return module

    def cut_at(self, layer: str, *, pooled: bool = True) -> tuple[nn.Module, Card]:
        """The prefix up to and with `layer` and its card. pooled: its output is averaged to (n, width), else as it is."""
        prefix = prefix_of(self.network, layer, pooled=pooled, chain=lambda: self.chain)
        parameters, macs, shape = measured(prefix, self.preprocess)
        card = Card(
            name=self.name,
            architecture=self.architecture,
            weights=self.weights,
            origin=self.origin,
            licence=self.licence,
            shape=shape,
            parameters=parameters,
            macs=macs,
            preprocess=self.preprocess,
            cut=layer,
            pooled=pooled,
            arguments=self.arguments,
        )
        return prefix, card

    def suffix(self, cut: str) -> nn.Module:
        """From behind the layer `cut` up to the pooled features, (n, width): what is put on the unpooled prefix."""
        return suffix_of(self.chain, cut)

    @functools.cached_property
    def prefix(self) -> nn.Module:
        """The pooled prefix at the backbone's own cut."""
        return self.cut_at(self.cut)[0]

    @functools.cached_property
    def card(self) -> Card:
        """The card of that prefix."""
        return self.cut_at(self.cut)[1]

    def _incomplete(self, name: str) -> BackboneError:
        """name: of a tensor that the weights do not have."""
        given, own = self.lacking[name], tuple(self.network.state_dict()[name].shape)
        why, fix = "", "Take layers without it, such as backbone[:-1]."
        if given is not None:
            why = f"The network has {own} there, the weights {given}."
            if name in classifier_names(self.network) and given[1:] == own[1:]:
                fix = f"Take the network with as many outputs: num_classes={given[0]}."
        return BackboneError(
            what=f"These layers hold {name!r}, which the weights of {self.origin} do not have, but random numbers.",
            why=why,
            fix=fix,
        )

    def _next(self, name: str) -> str:
        names = [layer.name for layer in self.layers]
        return names[names.index(name) + 1] if name in names[:-1] else name


@own_settings()
def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    cut: str = POOL,
    pretrained: bool = True,
    seed: int = 0,
    fetches: bool = True,
) -> Backbone:
    """A timm classifier. name: timm's, or a key of `card.PACKAGES`. weights: a local file instead of its own.

    arguments: for timm, but mean, std, input_size, crop_pct and interpolation change the preprocessing; num_classes asks for
    a classifier of that width, a new one where the weights have none. cut: the weights of layers behind it may be missing.
    pretrained=False: random weights from `seed`. fetches: whether a hub may be asked for weights that are not here.
    Raises UnknownBackbone, UnknownLayer, WeightsUnavailable, WeightsMismatch, UnsafeWeights.
    """
    if weights is not None and not pretrained:
        raise BackboneError(
            what=f"weights={str(weights)!r} and pretrained=False ask for two things.", fix="Leave one of them out."
        )
    name, arguments = known_as(name), dict(arguments or {})
    architecture = architecture_of(name)
    network = created(architecture, arguments, seed).requires_grad_(False)
    preprocess = preprocess_of(network, name, arguments)
    if arguments:
        check_runs(network, name, arguments)
    if pretrained:
        place = locate(name, Path(weights) if weights is not None else None)
        path = place.path or fetch_weights(name, network, only_here=not fetches)
        size = (preprocess.height, preprocess.width)
        chain = functools.cache(lambda: Chain(network, size))
        prefix = prefix_of(network, cut, chain=chain)
        loaded, lacking = load_into(network, prefix, read_weights(path), place.origin, chain)
        if arguments.get("num_classes") is not None:
            new = classifier_names(network)
            lacking = {tensor: shape for tensor, shape in lacking.items() if tensor not in new}
        digest = place.digest or sha256_file(path)
    else:
        place, loaded, lacking = Place("file", None, None, f"random numbers, seed {seed}"), "random", {}
        digest = _digest(network)
    origin = place.origin + (f" {network.pretrained_cfg.get('hf_hub_id')}" if place.kind == "hub" else "")
    return Backbone(
        name,
        architecture,
        network,
        preprocess,
        digest,
        origin,
        _licence(network, place),
        arguments,
        cut,
        loaded,
        lacking,
    )


def backbone(
    name: str = "efficientnet_lite0",
    *,
    weights: str | Path | None = None,
    cut: str = POOL,
    pretrained: bool = True,
    seed: int = 0,
    **arguments: Any,
) -> Backbone:
    """A pretrained network as a chain of named layers: `resnet = rehead.backbone("resnet50")`, `body = resnet[:-2]`.

    Arguments and errors as in `load_backbone`; further arguments are timm's and the preprocessing's, such as
    pad_type="same" or mean=0.5.
    """
    return load_backbone(name, weights=weights, arguments=arguments, cut=cut, pretrained=pretrained, seed=seed)


def sketch(name: str, arguments: Mapping[str, Any]) -> Chain:
    """The layers of a backbone by its name alone, without room for weights. Raises UnknownBackbone and BackboneError."""
    network = created(architecture_of(name), arguments, 0, device="meta")
    preprocess = preprocess_of(network, known_as(name), arguments)
    return Chain(network, (preprocess.height, preprocess.width))


def check_weights(network: nn.Module, path: Path, cut: str, source: str, preprocess: Preprocess) -> None:
    """Raises WeightsMismatch and UnsafeWeights for a file that `load_backbone` would refuse.

    network: without room for weights. cut: the layer up to which they must be complete. source: what they are called.
    """
    tensors = read_weights(path)
    if cut == POOL:  # at another layer only the network with its weights can be cut for certain
        size = (preprocess.height, preprocess.width)
        matched(network, Pooled(network), tensors, source, lambda: Chain(network, size))


@own_settings()
def measured(prefix: nn.Module, preprocess: Preprocess) -> tuple[int, int, tuple[int, ...]]:
    """Parameters, multiply-adds and the shape of the output for one photo, by running a prefix on an empty one."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(prefix.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = prefix(torch.zeros(1, 3, preprocess.height, preprocess.width, device=device))
    return n_parameters(prefix), counter.get_total_flops() // 2, tuple(features.shape[1:])


def n_parameters(prefix: nn.Module) -> int:
    """How many a prefix has, without those of a classifier that it does not use."""
    unused = prefix.network.get_classifier() if isinstance(prefix, Pooled) else None
    n_unused = sum(p.numel() for p in unused.parameters()) if isinstance(unused, nn.Module) else 0
    return sum(p.numel() for p in prefix.parameters()) - n_unused


def _licence(network: nn.Module, place: Place) -> str:
    if place.kind == "file":
        return "unknown: that of the weights file"
    return str(network.pretrained_cfg.get("license") or "unknown")


def _digest(network: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        whole.update(name.encode() + tensor.cpu().numpy().tobytes())
    return whole.hexdigest()
