"""ONNX's operators in PyTorch: those that the exporter writes for timm's networks, as `OPERATORS` lists them.

Each is given its inputs, tensors or constants as arrays of numpy, and its attributes. What they become in `torch.export` is
let in again by `exported_programs.py`, and nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from rehead.errors import BundleError

Attributes = Mapping[str, Any]


def _ints(value: Any) -> list[Any]:
    """Sizes, axes and the like as a list: whole numbers, or what stands for the free n."""
    if isinstance(value, torch.Tensor):
        raise BundleError(
            what="The graph computes a size from the photos themselves, which PyTorch cannot export.",
            fix="Use another form: --to openvino, or --to onnx-int8.",
        )
    return [x if isinstance(x, torch.SymInt) else int(x) for x in np.ravel(value).tolist()]


def _tensor(value: Any, like: torch.Tensor | None = None) -> torch.Tensor:
    """A constant as a tensor of the kind of its neighbour."""
    if isinstance(value, torch.Tensor):
        return value
    if value.dtype == object:
        value = np.array([int(x) for x in value.ravel()]).reshape(value.shape)
    found = torch.from_numpy(np.array(value))
    return found if like is None else found.to(like.dtype)


def _number(value: Any) -> Any:
    return value if value is None or isinstance(value, torch.Tensor) else np.asarray(value).item()


def _pair(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Sequence[Any], Attributes], Any]:
    """An operator on two tensors, of which either may be a constant."""

    def run(given: Sequence[Any], _: Attributes) -> torch.Tensor:
        one = next(value for value in given if isinstance(value, torch.Tensor))
        return function(*(_tensor(value, one) for value in given))

    return run


def _each(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Sequence[Any], Attributes], Any]:
    return lambda given, _: function(given[0])


def _divided(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _padded(x: torch.Tensor, pads: Sequence[Any], value: float = 0.0, mode: str = "constant") -> torch.Tensor:
    """ONNX's order of pads, all beginnings before all ends, in PyTorch's, the last dimension first."""
    half = len(pads) // 2
    order = [size for i in reversed(range(half)) for size in (pads[i], pads[half + i])]
    while len(order) > 2 and all(isinstance(p, int) and p == 0 for p in order[-2:]):
        order = order[:-2]
    return F.pad(x, order, mode=mode, value=value) if mode == "constant" else F.pad(x, order, mode=mode)


def _pad(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    value = _number(given[2]) if len(given) > 2 and given[2] is not None else 0.0
    return _padded(given[0], _ints(given[1]), float(value), about.get("mode", "constant"))


def _window(x: torch.Tensor, about: Attributes, value: float) -> tuple[torch.Tensor, list[int]]:
    """What a window slides over: padded where both sides are not padded alike; and the padding that is left to it."""
    pads = list(about.get("pads", [0] * (2 * (x.dim() - 2))))
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half]
    return _padded(x, [0, 0, *pads[:half], 0, 0, *pads[half:]], value), [0] * half


def _conv(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, weight, bias = given[0], _tensor(given[1], given[0]), given[2] if len(given) > 2 else None
    x, padding = _window(x, about, 0.0)
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.dim()]
    n = weight.dim() - 2
    return convolve(x, weight, None if bias is None else _tensor(bias, x), about.get("strides", [1] * n), padding,
                    about.get("dilations", [1] * n), about.get("group", 1))  # fmt: skip


def _max_pool(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, padding = _window(given[0], about, -math.inf)
    return F.max_pool2d(x, about["kernel_shape"], about.get("strides", [1, 1]), padding,
                        about.get("dilations", [1, 1]), bool(about.get("ceil_mode", 0)))  # fmt: skip


def _average_pool(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, padding = _window(given[0], about, 0.0)
    return F.avg_pool2d(x, about["kernel_shape"], about.get("strides", [1, 1]), padding,
                        bool(about.get("ceil_mode", 0)), bool(about.get("count_include_pad", 0)))  # fmt: skip


def _gemm(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    a, b = given[0], _tensor(given[1], given[0])
    found = (a.T if about.get("transA", 0) else a) @ (b.T if about.get("transB", 0) else b) * about.get("alpha", 1.0)
    return found + about.get("beta", 1.0) * _tensor(given[2], a) if len(given) > 2 else found


def _reduce(function: Callable[..., torch.Tensor]) -> Callable[[Sequence[Any], Attributes], Any]:
    def run(given: Sequence[Any], about: Attributes) -> torch.Tensor:
        axes = about.get("axes") or (_ints(given[1]) if len(given) > 1 else list(range(given[0].dim())))
        return function(given[0], axes, bool(about.get("keepdims", 1)))

    return run


def _reshape(given: Sequence[Any], _: Attributes) -> torch.Tensor:
    sizes = _ints(given[1])
    return given[0].reshape([given[0].shape[i] if isinstance(s, int) and s == 0 else s for i, s in enumerate(sizes)])


def _flatten(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    axis = about.get("axis", 1)
    return given[0].flatten(axis) if axis == 1 else given[0].reshape(math.prod(given[0].shape[:axis]), -1)


def _squeeze(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    axes = _ints(given[1]) if len(given) > 1 else about.get("axes", [])
    return given[0].squeeze(tuple(axes)) if len(axes) else given[0].squeeze()


def _unsqueeze(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, axes = given[0], _ints(given[1]) if len(given) > 1 else about["axes"]
    for axis in sorted(a % (x.dim() + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(given: Sequence[Any], _: Attributes) -> torch.Tensor:
    x, starts, ends = given[0], _ints(given[1]), _ints(given[2])
    axes = _ints(given[3]) if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = _ints(given[4]) if len(given) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step < 0:
            places = range(*slice(start, None if end < -size else end, step).indices(size))
            x = x.index_select(axis, torch.tensor(list(places)))
            continue
        where = [slice(None)] * x.dim()
        where[axis] = slice(start, None if end >= 2**31 - 1 else end, step)
        x = x[tuple(where)]
    return x


def _gather(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, places, axis = given[0], given[1], about.get("axis", 0)
    if isinstance(x, torch.Tensor) and not isinstance(places, torch.Tensor) and np.ndim(places) == 0:
        return x.select(axis, int(places))
    x, places = _tensor(x), _tensor(places).long()
    places = torch.where(places < 0, places + x.shape[axis], places)
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


def _split(given: Sequence[Any], about: Attributes) -> tuple[torch.Tensor, ...]:
    axis = about.get("axis", 0)
    sizes = _ints(given[1]) if len(given) > 1 else about["split"]
    return tuple(torch.split(given[0], sizes, axis))


def _concat(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    one = next(value for value in given if isinstance(value, torch.Tensor))
    return torch.cat([_tensor(value, one) for value in given], about["axis"])


def _expand(given: Sequence[Any], _: Attributes) -> torch.Tensor:
    x, sizes = _tensor(given[0]), _ints(given[1])
    own = [1] * (len(sizes) - x.dim()) + list(x.shape)
    return x.expand([o if isinstance(s, int) and s == 1 else s for o, s in zip(own, sizes, strict=True)])


def _normalised(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    axis = about.get("axis", -1)
    bias = given[2] if len(given) > 2 else None
    return F.layer_norm(given[0], given[0].shape[axis:], given[1], bias, about.get("epsilon", 1e-5))


def _batch_norm(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    x, scale, bias, mean, variance = given
    return F.batch_norm(x, mean, variance, scale, bias, eps=about.get("epsilon", 1e-5))


def _where(given: Sequence[Any], _: Attributes) -> torch.Tensor:
    one = next(value for value in given[1:] if isinstance(value, torch.Tensor))
    return torch.where(_tensor(given[0]).bool(), _tensor(given[1], one), _tensor(given[2], one))


def _top_k(given: Sequence[Any], about: Attributes) -> tuple[torch.Tensor, torch.Tensor]:
    found = torch.topk(given[0], _ints(given[1])[0], about.get("axis", -1), bool(about.get("largest", 1)))
    return found.values, found.indices


def _clip(given: Sequence[Any], _: Attributes) -> torch.Tensor:
    low, high = ([*(_number(value) for value in given[1:]), None, None])[:2]
    return torch.clamp(given[0], low, high)


def _cast(given: Sequence[Any], about: Attributes) -> torch.Tensor:
    from onnx import helper

    kind = torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(about["to"]))).dtype
    return _tensor(given[0]).to(kind)


OPERATORS: dict[str, Callable[[Sequence[Any], Attributes], Any]] = {
    "Abs": _each(torch.abs),
    "Add": _pair(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Cos": _each(torch.cos),
    "Div": _pair(_divided),
    "Elu": lambda given, about: F.elu(given[0], about.get("alpha", 1.0)),
    "Erf": _each(torch.erf),
    "Exp": _each(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda given, _: given[0].mean(tuple(range(2, given[0].dim())), keepdim=True),
    "GlobalMaxPool": lambda given, _: given[0].amax(tuple(range(2, given[0].dim())), keepdim=True),
    "HardSigmoid": lambda given, about: torch.clamp(
        about.get("alpha", 0.2) * given[0] + about.get("beta", 0.5), 0.0, 1.0
    ),
    "HardSwish": _each(F.hardswish),
    "Identity": lambda given, _: given[0] + 0,  # an output of its own: torch.export refuses two names for one
    "LayerNormalization": _normalised,
    "LeakyRelu": lambda given, about: F.leaky_relu(given[0], about.get("alpha", 0.01)),
    "Log": _each(torch.log),
    "MatMul": _pair(torch.matmul),
    "Max": _pair(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _pair(torch.minimum),
    "Mul": _pair(torch.mul),
    "Neg": _each(torch.neg),
    "Pad": _pad,
    "Pow": lambda given, _: torch.pow(given[0], _number(given[1])),
    "Reciprocal": _each(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "Relu": _each(F.relu),
    "Reshape": _reshape,
    "Sigmoid": _each(torch.sigmoid),
    "Sin": _each(torch.sin),
    "Slice": _slice,
    "Softmax": lambda given, about: torch.softmax(given[0], about.get("axis", -1)),
    "Softplus": _each(F.softplus),
    "Split": _split,
    "Sqrt": _each(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _pair(torch.sub),
    "Tanh": _each(torch.tanh),
    "Tile": lambda given, _: given[0].repeat(_ints(given[1])),
    "TopK": _top_k,
    "Transpose": lambda given, about: given[0].permute(about["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
