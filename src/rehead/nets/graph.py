"""A network traced into a graph of operations, each with what it gives and what it costs. The substance of `chain.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Node:
    """One operation. path: of the network's module that does it, "" for the network's own code. shape: of what it gives
    for one photo, () where that is no tensor. macs: multiply-adds for one photo. learns: whether it has weights that do
    more than scale."""

    fx: fx.Node
    path: str
    shape: tuple[int, ...]
    macs: int
    parameters: tuple[torch.Tensor, ...]
    learns: bool


class _Tracer(fx.Tracer):
    """Looks into a network as far as its operations, but not into what timm says cannot be traced, nor into modules that
    do something else in training: their mode is chosen later."""

    def __init__(self) -> None:
        from timm.layers import get_notrace_functions, get_notrace_modules

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._whole = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        by_mode = type(m).__name__ in ("DropPath", "DropBlock2d", "PatchDropout")
        return by_mode or isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> fx.Graph:
    """The graph of a network in eval mode with one input. Raises what torch.fx or the network's own code raises."""
    tracer = _Tracer()
    names = network.forward.__code__.co_varnames[1 : network.forward.__code__.co_argcount]
    return as_module(network, tracer.trace(network, concrete_args=dict.fromkeys(names[1:]))).graph


def as_module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph of the network's operations as a module with the network's own parameters, without what nothing uses."""
    module = fx.GraphModule(network, graph, class_name="Piece")
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


def measured(network: nn.Module, graph: fx.Graph, size: tuple[int, int]) -> list[Node]:
    """The operations in order, the input first, without the output, measured on one empty photo of this size."""
    probe = _Probe(network, graph)
    with torch.no_grad(), FlopCounterMode(display=False) as probe.counter:
        probe.run(torch.zeros(1, 3, *size, device=next(network.parameters()).device))
    return [_node(network, node, *probe.facts[node]) for node in graph.nodes if node.op != "output"]


def crossing(nodes: list[Node], place: int) -> set[fx.Node]:
    """What is computed up to `place` and used behind it."""
    behind = {node.fx for node in nodes[place + 1 :]}
    return {
        node.fx
        for i, node in enumerate(nodes[: place + 1])
        if node.fx.op != "get_attr" and (i == place or any(user in behind for user in node.fx.users))
    }


class _Probe(fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and notes of each node the shape of what it gives and the multiply-adds it took."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.facts: dict[fx.Node, tuple[tuple[int, ...], int]] = {}
        self.counter: Any = None

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        shape = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()
        self.facts[n] = (shape, (self.counter.get_total_flops() - before) // 2)
        return value


def _node(network: nn.Module, node: fx.Node, shape: tuple[int, ...], macs: int) -> Node:
    if node.op == "call_module":
        path, module = str(node.target), network.get_submodule(str(node.target))
        parameters = tuple(module.parameters())
        learns = bool(parameters) and not re.search("norm", type(module).__name__, re.IGNORECASE)
        return Node(node, path, shape, macs, parameters, learns)
    stack = list(node.meta.get("nn_module_stack", {}).items())
    path = str(stack[-1][0]) if stack else ""
    if node.op == "get_attr":
        path = path or str(node.target).rpartition(".")[0]
        value: Any = network
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, nn.Parameter):
            return Node(node, path, shape, macs, (value,), False)
    return Node(node, path, shape, macs, (), False)
