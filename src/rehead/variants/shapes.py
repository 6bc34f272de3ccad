"""The part of an ONNX graph that computes with sizes: on numpy's arrays, whose elements may be numbers or PyTorch's free n."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = NDArray[Any]


def is_shape(value: Any) -> bool:
    """Whether a value is a constant or a size; else it is a tensor that depends on the photos."""
    return value is None or isinstance(value, np.ndarray)


def shape_of(value: Any) -> Shape:
    """The sizes of a tensor or a constant, (rank,)."""
    return settled(np.array([*value.shape, None], object)[:-1])


def settled(value: Shape) -> Shape:
    """The same, as int64 where every element is a whole number; objects are left where one is free."""
    if value.dtype != object or not all(isinstance(x, (int, np.integer)) for x in value.ravel()):
        return value
    return np.asarray(value.astype(np.int64))


def _axes(given: Sequence[Any], about: Mapping[str, Any]) -> list[int]:
    return [int(a) for a in np.ravel(given[1])] if len(given) > 1 else list(about.get("axes", []))


def _cast(given: Sequence[Any], about: Mapping[str, Any]) -> Shape:
    from onnx import helper

    if given[0].dtype == object:
        return np.asarray(given[0])
    return np.asarray(given[0]).astype(helper.tensor_dtype_to_np_dtype(about["to"]))


def _divided(given: Sequence[Any], _: Mapping[str, Any]) -> Shape:
    a, b = given
    if np.asarray(a).dtype.kind == "f" or np.asarray(b).dtype.kind == "f":
        return np.asarray(np.divide(a, b))
    return np.asarray(a // b)  # sizes are not negative


def _slice(given: Sequence[Any], _: Mapping[str, Any]) -> Shape:
    x, starts, ends = given[0], np.ravel(given[1]), np.ravel(given[2])
    axes = np.ravel(given[3]) if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = np.ravel(given[4]) if len(given) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where = [slice(None)] * x.ndim
        where[int(axis)] = slice(int(start), None if step < 0 and end < -x.shape[axis] else int(end), int(step))
        x = x[tuple(where)]
    return np.asarray(x)


def _reshape(given: Sequence[Any], _: Mapping[str, Any]) -> Shape:
    return np.asarray(given[0]).reshape([int(size) for size in given[1]])


def _squeeze(given: Sequence[Any], about: Mapping[str, Any]) -> Shape:
    axes = _axes(given, about)
    return np.asarray(np.squeeze(given[0], tuple(axes) if axes else None))


def _unsqueeze(given: Sequence[Any], about: Mapping[str, Any]) -> Shape:
    return np.expand_dims(given[0], tuple(_axes(given, about)))


def _gather(given: Sequence[Any], about: Mapping[str, Any]) -> Shape:
    return np.asarray(np.take(given[0], np.asarray(given[1], np.int64), axis=about.get("axis", 0)))


def _filled(given: Sequence[Any], about: Mapping[str, Any]) -> Shape:
    value = np.ravel(about.get("value", np.zeros(1, np.float32)))[0]
    return np.full([int(size) for size in given[0]], value)


def _clip(given: Sequence[Any], _: Mapping[str, Any]) -> Shape:
    low, high = ([*given[1:], None, None])[:2]
    return np.asarray(np.clip(given[0], low, high))


ON_SHAPES: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Shape]] = {
    "Add": lambda given, _: np.asarray(given[0] + given[1]),
    "Cast": _cast,
    "Ceil": lambda given, _: np.asarray(np.ceil(given[0])),
    "Clip": _clip,
    "Concat": lambda given, about: np.concatenate(given, axis=about["axis"]),
    "ConstantOfShape": _filled,
    "Div": _divided,
    "Equal": lambda given, _: np.asarray(given[0] == given[1]),
    "Expand": lambda given, _: np.asarray(np.broadcast_to(given[0], [int(size) for size in given[1]])),
    "Floor": lambda given, _: np.asarray(np.floor(given[0])),
    "Gather": _gather,
    "Identity": lambda given, _: np.asarray(given[0]),
    "Max": lambda given, _: np.asarray(np.maximum(*given)),
    "Min": lambda given, _: np.asarray(np.minimum(*given)),
    "Mod": lambda given, _: np.asarray(np.mod(*given)),
    "Mul": lambda given, _: np.asarray(given[0] * given[1]),
    "Neg": lambda given, _: np.asarray(-given[0]),
    "Range": lambda given, _: np.arange(*(np.asarray(x).item() for x in given)),
    "ReduceProd": lambda given, _: np.asarray(math.prod(given[0].tolist())),
    "Reshape": _reshape,
    "Shape": lambda given, _: shape_of(given[0]),
    "Slice": _slice,
    "Sqrt": lambda given, _: np.asarray(np.sqrt(given[0])),
    "Squeeze": _squeeze,
    "Sub": lambda given, _: np.asarray(given[0] - given[1]),
    "Transpose": lambda given, about: np.transpose(given[0], about.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": lambda given, _: np.where(*given),
}
