"""A network traced into a graph of operations, each with what it gives and what it costs. The substance of `chain.py`."""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Node:
    """One operation. path: of the network's module that does it, "" for the network's own code. shape: of what it gives
    for one photo, () where that is no tensor. macs: multiply-adds for one photo. learns: whether it has weights that do
    more than scale and shift. is_free: it does not depend on the photos, but may on their size. number: what it gives,
    where that is a number that does not depend on how many photos there are."""

    fx: fx.Node
    path: str
    shape: tuple[int, ...] = ()
    macs: int = 0
    parameters: tuple[torch.Tensor, ...] = ()
    learns: bool = False
    is_free: bool = False
    number: float | None = None


FLATTEN = ("flatten", torch.flatten)  # the method and the function
FORMS = (nn.Flatten, nn.Identity)


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


def traced(network: nn.Module) -> tuple[fx.Graph, fx.Node]:
    """The graph of a timm network in eval mode with one input, and the node that gives what its `forward_head` gives as
    `pre_logits`, but for the form. Raises what torch.fx or the network's own code raises."""
    tracer, ends = _Tracer(), list[tuple[int, fx.Node]]()
    whole: Any = network
    forward_head = whole.forward_head

    def both(features: Any, *others: Any, **named: Any) -> Any:
        begin = len(tracer.graph.nodes)
        ends.append((begin, forward_head(features, pre_logits=True).node))
        return forward_head(features, *others, **named)

    _, *others = inspect.signature(network.forward).parameters.values()
    whole.forward_head = both
    try:
        graph = tracer.trace(network, concrete_args={o.name: o.default for o in others})
    finally:
        del whole.forward_head
        network.eval()  # attention of LeViT and others keeps biases until its mode is set: here those of this graph
    [(begin, pooled)] = ends
    pooled = _without_form(network, _once_each(graph, begin, pooled))
    module = fx.GraphModule(network, graph, class_name="Whole")
    module.graph.eliminate_dead_code(lambda node: node is pooled or node.is_impure())
    return module.graph, pooled


def _once_each(graph: fx.Graph, begin: int, pooled: fx.Node) -> fx.Node:
    """Takes out of a graph what it computes twice from the place `begin` on; gives `pooled`, or the node that stands for it."""
    first: dict[tuple[Any, ...], fx.Node] = {}
    for node in list(graph.nodes)[begin:]:
        one = first.setdefault((node.op, node.target, repr(node.args), repr(node.kwargs)), node)
        if one is not node:
            node.replace_all_uses_with(one)
            graph.erase_node(node)
            pooled = one if node is pooled else pooled
    return pooled


def _without_form(network: nn.Module, node: fx.Node) -> fx.Node:
    """The last node up to this one that gives more than another form of what comes in, or that is used otherwise too."""
    while not node.users:
        is_module = node.op == "call_module"
        is_form = isinstance(network.get_submodule(str(node.target)), FORMS) if is_module else node.target in FLATTEN
        if not is_form:
            break
        node, unused = node.all_input_nodes[0], node
        node.graph.erase_node(unused)
    return node


def as_module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph of the network's operations as a module with the network's own parameters, without what nothing uses. What
    leaves out numbers in training alone does so by its mode, as in the network."""
    module = fx.GraphModule(network, graph, class_name="Piece")
    module.graph.eliminate_dead_code()
    for node in list(module.graph.nodes):
        if (by_mode := _by_mode(network, node)) is not None:
            target = ".".join(filter(None, (_path(node), f"{node.name}_by_mode")))
            module.add_submodule(target, by_mode)
            with module.graph.inserting_before(node):
                kwargs = {} if node.target is F.dropout else node.kwargs
                node.replace_all_uses_with(module.graph.call_module(target, node.args, kwargs))
            module.graph.erase_node(node)
    module.recompile()
    return module.eval()


class _Attention(nn.Module):
    """Attention that leaves out a share `p` of its weights in training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return F.scaled_dot_product_attention(*args, **{**kwargs, "dropout_p": self.p if self.training else 0.0})


def _by_mode(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """A module for a function that was told when it was traced that this is no training."""
    if node.target is F.dropout:
        return nn.Dropout(cast("float", node.kwargs["p"]))
    if node.target is F.scaled_dot_product_attention:
        share = getattr(getattr(network.get_submodule(_path(node)), "attn_drop", None), "p", 0.0)
        return _Attention(share) if share else None
    return None


def _path(node: fx.Node) -> str:
    """Of the network's module in whose code a node stands, "" for the network's own."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def measured(network: nn.Module, graph: fx.Graph, size: tuple[int, int]) -> list[Node]:
    """The operations in order, the input first, without the output, measured on one empty photo of this size."""
    probe = _Probe(network, graph)
    with torch.no_grad(), FlopCounterMode(display=False) as probe.counter:
        probe.run(torch.zeros(1, 3, *size, device=next(network.parameters()).device))
    nodes: dict[fx.Node, Node] = {}
    for node in graph.nodes:
        if node.op != "output":
            inputs = [nodes[other] for other in node.all_input_nodes]
            nodes[node] = _node(network, node, inputs, *probe.facts[node])
    return list(nodes.values())


def crossing(nodes: list[Node], place: int) -> list[Node]:
    """What is computed from the photos up to `place` and used behind it, numbers apart."""
    behind = {node.fx for node in nodes[place + 1 :]}
    return [
        node
        for node in nodes[: place + 1]
        if not node.is_free
        and node.number is None
        and any(user in behind or user.op == "output" for user in node.fx.users)
    ]


Normed = tuple[nn.Conv2d, nn.BatchNorm2d]


def normed(network: nn.Module, graph: fx.Graph) -> list[Normed]:
    """Convolutions without a bias whose output is read by a norm alone, one that scales and shifts and keeps statistics; each
    with that norm, each used once."""
    n_uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1:
            convolution, norm = network.get_submodule(str(before.target)), network.get_submodule(str(node.target))
            is_bare = type(convolution).__name__ in ("Conv2d", "Conv2dSame") and convolution.bias is None
            is_whole = type(norm).__name__ in ("BatchNorm2d", "BatchNormAct2d") and "running_var" in norm.state_dict()
            if (
                n_uses[before.target] == n_uses[node.target] == 1
                and is_bare
                and is_whole
                and len([*norm.parameters()]) == 2
            ):
                pairs.append((convolution, cast("nn.BatchNorm2d", norm)))
    return pairs


class _Probe(fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and notes of each node what it gives, a tensor's shape or a number, and the multiply-adds it took."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.facts: dict[fx.Node, tuple[Any, int]] = {}
        self.counter: Any = None

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        macs = (self.counter.get_total_flops() - before) // 2
        self.facts[n] = (value.shape if isinstance(value, torch.Tensor) else value, macs)
        return value


def _node(network: nn.Module, node: fx.Node, inputs: list[Node], gives: Any, macs: int) -> Node:
    is_tensor = isinstance(gives, torch.Size) and not _is_size(node)
    is_free = node.op != "placeholder" and all(
        other.is_free or (is_tensor and other.number is not None) for other in inputs
    )
    shape = tuple(gives[1:]) if is_tensor else ()
    number = gives if isinstance(gives, (int, float)) and not is_free and _is_same_for_all(node, inputs) else None
    parameters: tuple[torch.Tensor, ...] = ()
    learns = False
    if node.op == "call_module":
        path, module = str(node.target), network.get_submodule(str(node.target))
        parameters = tuple(module.parameters())
        learns = any(parameter.ndim > 1 for parameter in parameters)
    else:
        path = _path(node)
    if node.op == "get_attr":
        path = path or str(node.target).rpartition(".")[0]
        value = operator.attrgetter(str(node.target))(network)
        parameters = (value,) if isinstance(value, nn.Parameter) else ()
        learns = bool(parameters) and value.squeeze().ndim > 1
    return Node(node, path, shape, macs, parameters, learns, is_free, number)


def _is_size(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its shape."""
    return (node.op == "call_method" and node.target == "size") or (node.target is getattr and node.args[1] == "shape")


def _is_same_for_all(node: fx.Node, inputs: list[Node]) -> bool:
    """Whether a number does not depend on how many photos there are: it was made from lengths behind the first."""
    if _is_size(node):
        return len(node.args) > 1 and node.args[1] not in (0, "shape")
    if node.target is operator.getitem and _is_size(inputs[0].fx):
        return node.args[1] != 0
    return bool(inputs) and all(other.is_free or other.number is not None for other in inputs)
