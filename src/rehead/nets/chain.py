"""A network as a chain of named layers in order of data flow, cut between any two.

The network is traced once by torch.fx, with timm's own list of what not to look into. A cut is allowed where exactly one
tensor crosses; pieces are modules that share the network's parameters under their own names. What a piece is used for,
frozen or tuned, is left to others.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from rehead.ambient import own_settings
from rehead.errors import BackboneError, UnknownLayer, nearest
from rehead.nets.graph import Node, Normed, as_module, crossing, measured, normed, traced

STEM, POOL, HEAD = "stem", "pool", "head"
DEEPEST = 4  # of the names that are looked for: `stages.2.blocks.5`


@dataclass(frozen=True)
class Layer:
    """A named stage. shape: of its output for one photo, such as (512, 7, 7). parameters: how many it has. macs: its
    multiply-adds for one photo. end: the place in the graph of the node that gives its output."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Of its output for one photo, in float16."""
        return 2 * math.prod(self.shape)


class Chain:
    """A traced network. layers: the stages a person would name, in order of data flow. pooled: the place in the graph of the
    node that gives the pooled features; the head is behind it.

    Laws: the pieces of neighbouring layers, one after the other, are the network, whatever the cuts, and up to `pool` its
    pooled features. A piece shares the network's parameters, under the network's own names for them. A head that reads more
    than the pooled features, as in VOLO and the distilled DeiT and PiT, is listed, but is a piece only together with `pool`.
    """

    @own_settings()
    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        """network: of timm, in eval mode. size: height and width of its input in pixels.

        Raises BackboneError when torch.fx cannot trace it.
        """
        self.network = network
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._graph, pooled = traced(network)
                self._nodes = measured(network, self._graph, size)
        except Exception as error:  # tracing runs the network's own code
            raise BackboneError(
                what="This network cannot be taken apart: it can only be cut at `pool`.",
                why=f"torch.fx cannot trace it: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            ) from error
        self.pooled = next(i for i, node in enumerate(self._nodes) if node.fx is pooled)
        self._pool = _pooling(self._nodes, self.pooled + 1)
        self.layers = self.at_depth(1)

    def at_depth(self, depth: int) -> tuple[Layer, ...]:
        """The same chain in finer layers: depth 2 gives `layer4.2` of `layer4`, wherever a cut is allowed."""
        layers: list[Layer] = []
        first, before = "", -1
        for name, end in self._stages(depth):
            first = first or name
            if end != self.pooled and len(crossing(self._nodes, end)) != 1:
                continue  # more than one tensor crosses: this stage and the next are one layer
            layers.append(self._layer(name if name == first else f"{first}-{name}", before, end))
            first, before = "", end
        return tuple(layers)

    def opened_at(self, names: Set[str]) -> tuple[Layer, ...]:
        """The layers, but those that hold one of these finer ones are there in parts: `layer4.0, layer4.1` for `layer4.1`.

        A layer that is named itself stays whole, and names of no finer layer open nothing.
        """
        layers = list(self.layers)
        for depth in range(2, DEEPEST + 1):
            wanted = names - {layer.name for layer in layers}
            finer = self.at_depth(depth) if wanted else ()
            for end in (layer.end for layer in finer if layer.name in wanted):
                place = next((i for i, layer in enumerate(layers) if layer.end >= end), len(layers))
                before = layers[place - 1].end if place else -1
                parts = [layer for layer in finer if before < layer.end <= layers[place].end]
                if parts[-1].end == layers[place].end and layers[place].name not in names:
                    layers[place : place + 1] = parts
        return tuple(layers)

    def place(self, name: str) -> tuple[int, int]:
        """Where a layer at any depth lies in the graph: the places (of the layer before it or -1, of its own end).

        Raises UnknownLayer, which lists the layers and names the nearest.
        """
        names: list[str] = []
        for depth in range(1, DEEPEST + 1):
            before = -1
            for layer in self.at_depth(depth):
                if layer.name == name:
                    return before, layer.end
                before = layer.end
                names.append(layer.name)
        listed = ", ".join(layer.name for layer in self.layers)
        inside = [i for i, node in enumerate(self._nodes) if f"{node.path}.".startswith(f"{name}.")]
        if inside:
            n = len(crossing(self._nodes, inside[-1]))
            raise UnknownLayer(
                what=f"The network cannot be cut at {name!r}.",
                why=f"{n} tensors cross there; one can be handed on."
                if n > 1
                else f"It is a part of one of: {listed}.",
                fix=f"Cut at one of: {listed}.",
            )
        raise UnknownLayer(
            what=f"No layer is called {name!r}.",
            why=f"This backbone has, in order: {listed}.",
            fix=nearest(name, list(dict.fromkeys(names))) or "`rehead layers BACKBONE --depth 2` lists finer ones.",
        )

    def _stages(self, depth: int) -> list[tuple[str, int]]:
        """Names and ends of the stages, in order, whatever crosses between them."""
        stages: list[tuple[str, int]] = []
        for name, end, has_weights in _units(self.network, self._nodes[: self._pool], depth):
            if stages and not has_weights and (depth == 1 or _parent(name) == _parent(stages[-1][0])):
                stages[-1] = (stages[-1][0], end)
            else:
                stages.append((name, end))
        stages = _with_stem(stages) if depth == 1 else stages
        if self._pool <= self.pooled:
            stages.append((POOL, self.pooled))
        if self.pooled + 1 < len(self._nodes):
            stages.append((HEAD, len(self._nodes) - 1))
        return stages

    def piece(self, before: int, end: int) -> nn.Module:
        """The network behind the place `before` up to `end`: a module that shares its parameters.

        before: -1 to begin with the photos (n, 3, h, w). Both are ends of layers. Raises UnknownLayer where the pooled
        features are not all that the head is made from.
        """
        if before == self.pooled and crossing(self._nodes, before) != [self._handed(before)]:
            raise UnknownLayer(
                what="The head of this network cannot be taken alone.",
                why="It reads more than the pooled features: tokens of the layers below.",
                fix=f"Take it with these, or {self.layers[-2].name!r} and what is below without it.",
            )
        nodes = [node.fx for node in self._nodes]
        graph = fx.Graph()
        known: dict[fx.Node, Any] = {node.fx: node.number for node in self._nodes if node.number is not None}
        known[self._handed(before).fx] = graph.placeholder("x")

        def copied(node: fx.Node) -> Any:
            if node not in known:
                known[node] = graph.node_copy(node, copied)  # what was fetched before the cut is fetched again
            return known[node]

        for node in nodes[before + 1 : end + 1]:
            if node.op != "placeholder":
                copied(node)
        graph.output(copied(self._handed(end).fx))
        return as_module(self.network, graph)

    def __getitem__(self, which: int | str | slice) -> nn.Module:
        """chain[:-2], chain["layer4"], chain["stem":"pool"]: layers as a module; as in Python a slice ends before its end."""
        if isinstance(which, slice):
            if which.step not in (None, 1):
                raise UnknownLayer(what="Layers are taken one after the other: a slice of them has no step.")
            before = -1 if which.start is None else self._begin(which.start)
            end = len(self._nodes) - 1 if which.stop is None else self._begin(which.stop)
        else:
            before, end = self._bounds(which)
        if end <= before:
            raise UnknownLayer(
                what="This slice holds no layer.",
                why=f"The layers are, in order: {', '.join(layer.name for layer in self.layers)}.",
            )
        return self.piece(before, end)

    def normed(self) -> list[Normed]:
        """Convolutions with the norms behind them, where nothing else reads what the convolution gives."""
        return normed(self.network, self._graph)

    def _begin(self, which: int | str) -> int:
        """The place before a layer; positions out of range are the first or the end, as in any slice of Python's."""
        n = len(self.layers)
        if not isinstance(which, int):
            return self._bounds(which)[0]
        place = max(0, which + n if which < 0 else which)
        return self._bounds(place)[0] if place < n else self.layers[-1].end

    def _bounds(self, which: int | str) -> tuple[int, int]:
        if isinstance(which, str):
            return self.place(which)
        n = len(self.layers)
        if not isinstance(which, int):
            raise UnknownLayer(
                what=f"{which!r} names no layer.",
                fix='Pass a position, a name or a slice of them: backbone[:-2], backbone["stem"]',
            )
        place = which + n if which < 0 else which
        if not 0 <= place < n:
            raise UnknownLayer(
                what=f"There is no layer {which}: this backbone has {n}, counted from 0.",
                why=f"They are: {', '.join(layer.name for layer in self.layers)}.",
            )
        return (self.layers[place - 1].end if place else -1), self.layers[place].end

    def _handed(self, place: int) -> Node:
        """The one node whose value is handed on at a cut; the photos at -1."""
        is_whole = place in (-1, self.pooled)
        return self._nodes[max(0, place)] if is_whole else crossing(self._nodes, place)[0]

    def _layer(self, name: str, before: int, end: int) -> Layer:
        inside = self._nodes[before + 1 : end + 1]
        sizes = {id(tensor): tensor.numel() for node in inside for tensor in node.parameters}
        return Layer(name, self._handed(end).shape, sum(sizes.values()), sum(node.macs for node in inside), end)


def _pooling(nodes: list[Node], head: int) -> int:
    """The place of the first node behind the last map or row of tokens, before the classifier."""
    place = head
    while place > 1 and not _is_spread(nodes[place - 1]):
        place -= 1
    return place if place > 1 else head


def _is_spread(node: Node) -> bool:
    """Whether a node gives something for many places of the photo: a map larger than one pixel, or tokens."""
    shape = node.shape
    return not node.is_free and (len(shape) == 2 or (len(shape) == 3 and sorted(shape)[1] > 1))


def _parent(path: str) -> str:
    return path.rpartition(".")[0] or path


def _with_stem(stages: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """What comes before the first numbered stage (`layer1`, `blocks.0`) is one stage, the stem."""
    numbered = next(
        (i for i, (name, _) in enumerate(stages) if re.search(r"\d$", name) and _is_series(name, stages)), 0
    )
    return [(STEM, stages[numbered - 1][1]), *stages[numbered:]] if numbered else stages


def _is_series(name: str, stages: list[tuple[str, int]]) -> bool:
    """Whether others have this name with another number."""
    bare = re.sub(r"\d+$", "", name)
    return sum(re.sub(r"\d+$", "", other) == bare for other, _ in stages) > 1


def _units(network: nn.Module, nodes: list[Node], depth: int) -> list[tuple[str, int, bool]]:
    """(path of a module, place of its last node, whether it has more than a norm's weights), in order of data flow.

    A module that is used again later makes one unit of all that lies between.
    """
    opened = _opened(network, [node.path for node in nodes if node.path])
    units: list[tuple[str, int, bool]] = []
    for i, node in enumerate(nodes):
        name = _unit(node.path, opened, depth)
        known = [unit for unit, _, _ in units]
        if units and (not name or not known[0]):
            first = len(units) - 1
        elif name in known and (node.learns or known[-1] == name):
            first = known.index(name)
        else:
            first = len(units)
        has_weights = any(learns for _, _, learns in units[first:]) or node.learns
        units[first:] = [((known[first] if first < len(units) else "") or name, i, has_weights)]
    return units


def _unit(path: str, opened: set[str], depth: int) -> str:
    parts = path.split(".")
    n = 1
    while n < len(parts) and ".".join(parts[:n]) in opened:
        n += 1
    return ".".join(parts[: n + depth - 1])


def _opened(network: nn.Module, paths: list[str]) -> set[str]:
    """Modules whose children are the stages: `blocks` where they are numbered, but not `layer4` beside `layer3`; and what is
    below the pooling in modules with a name that is kept for what is behind."""
    tops = dict.fromkeys(path.split(".")[0] for path in paths)
    opened = set()
    for top in tops:
        children = dict.fromkeys(path.split(".")[1] for path in paths if path.startswith(f"{top}."))
        bare = re.sub(r"\d+$", "", top)
        siblings = sum(re.sub(r"\d+$", "", other) == bare for other in tops) > 1
        is_row = isinstance(getattr(network, top, None), (nn.Sequential, nn.ModuleList))
        if (is_row and len(children) > 1 and not siblings and top != STEM) or top in (POOL, HEAD):
            opened.add(top)
    return opened
