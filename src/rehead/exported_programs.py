"""A `.pt2` of `torch.export`, looked at before PyTorch opens it.

PyTorch's own `torch.export.load` is not made for files of strangers: it goes back to unrestricted pickles where the
restricted reader fails, and evaluates text that stands in the file. What rehead writes needs none of that, so a file that
asks for it is refused: pickled tensors and objects, operators that no program of ours needs, expressions and guards. PyTorch
is given a copy of what was looked at, never the file: its reader of zips and Python's may find two contents in one file.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.errors import BundleError

MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt"
)
# What `variants/torch_operators.py` becomes in `torch.export`. Others of `aten` map files, or write where they are told.
ATEN = """
    abs.default add.Tensor alias.default amax.default _assert_tensor_metadata.default avg_pool2d.default
    batch_norm.default cat.default clamp.default conv1d.default conv2d.default conv3d.default cos.default
    detach_.default div.Tensor div.Tensor_mode elu.default erf.default exp.default expand.default flatten.using_ints
    hardswish.default index_select.default layer_norm.default leaky_relu.default lift_fresh_copy.default
    linalg_vector_norm.default log.default lt.Scalar matmul.default max_pool2d.default maximum.default mean.dim
    minimum.default mul.Tensor neg.default numpy_T.default pad.default permute.default pow.Tensor_Scalar
    pow.Tensor_Tensor reciprocal.default relu.default repeat.default reshape.default select.int sigmoid.default
    sin.default slice.Tensor softmax.int softplus.default split_with_sizes.default sqrt.default squeeze.dims
    sub.Tensor sum.dim_IntList sym_size.int tanh.default to.dtype topk.default unsqueeze.default where.self
"""
ON_SIZES = "add floordiv getitem mod mul neg sub"  # and `getitem` of what has several outputs
OPERATORS = {f"torch.ops.aten.{name}" for name in ATEN.split()} | {f"_operator.{name}" for name in ON_SIZES.split()}
# Sums and products of whole numbers and of the free n, as in 64 n for windows of a photo
EXPRESSION = re.compile(r"((Add|Mul|Integer)\(|Symbol\('s\d++', (positive=True, )?integer=True\)|s\d++|[\d(), -])+")
AS_TEXT = {
    "target",
    "as_operator",
    "expr_str",
    "in_spec",
    "out_spec",
}  # keys of texts that PyTorch looks up or evaluates
TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
ENCRYPTED = 1  # the bit of a zip's flags
MAX_JSON_BYTES = 64 << 20  # a graph of a thousand operators is 2 MB

Call = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


@own_settings()
def open_program(path: Path) -> tuple[Call, tuple[int, int], dict[str, int | None]]:
    """pixels -> its outputs by name; height and width of the pixels; by output, its last dimension (None: free).

    Raises BundleError for a file that is none of ours.
    """
    copy = checked_program(path)
    import torch

    program = torch.export.load(copy)
    del copy  # as large as the weights
    module = program.module()

    def call(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            found = module(torch.from_numpy(np.ascontiguousarray(pixels)))
        return {name: value.numpy() for name, value in found.items()}

    taken = next(node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    height, width = (int(size) for size in taken.meta["val"].shape[1:3])
    found = call(np.zeros((1, height, width, 3), np.uint8))
    return call, (height, width), {name: _last(value) for name, value in found.items()}


def checked_program(path: Path) -> io.BytesIO:
    """What stands in the file, written anew. Raises BundleError where it would make PyTorch run it, or is damaged."""
    try:
        copy = _copied(path)
        with zipfile.ZipFile(copy) as archive:
            top = archive.namelist()[0].split("/")[0] + "/"
            for kind in ("weights", "constants"):
                for about in _json(archive, f"{top}data/{kind}/model_{kind}_config.json")["config"].values():
                    if about["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", about["path_name"]):
                        raise _refused(path, f"its {kind} are pickled")
            _check_graph(path, _json(archive, f"{top}models/model.json"))
            _check_sample(path, archive.read(f"{top}data/sample_inputs/model.pt"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise _refused(path, f"{type(error).__name__}: {error}") from error
    copy.seek(0)
    return copy


def _copied(path: Path) -> io.BytesIO:
    """The members of the file, each read once, as an archive of ours in memory."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        members = source.infolist()
        names = [member.filename for member in members]
        top = names[0].split("/")[0] + "/"
        if wrong := [name for name in names if not name.startswith(top) or not MEMBER.fullmatch(name[len(top) :])]:
            raise _refused(path, f"it holds {wrong[0]!r}")
        if len(set(names)) != len(names):
            raise _refused(path, "it holds a file twice")
        if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & ENCRYPTED for member in members):
            raise _refused(path, "it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise _refused(path, "its files are larger than itself")
        for name in names:
            target.writestr(name, source.read(name))
    return copy


def _check_graph(path: Path, program: Mapping[str, Any]) -> None:
    if program["guards_code"] or program["graph_module"].get("treespec_namedtuple_fields"):
        raise _refused(path, "it brings code to check its inputs with")
    for key, value in _leaves(program):
        if key in AS_TEXT and not isinstance(value, str):
            raise _refused(path, f"its {key} is no text")
        if key in ("target", "as_operator") and value not in OPERATORS:
            raise _refused(path, f"it calls {value!r}")
        if key == "expr_str" and not EXPRESSION.fullmatch(str(value)):
            raise _refused(path, f"it computes {value!r}")
        if key in ("in_spec", "out_spec"):
            for name, inner in _leaves(json.loads(value)):
                if name == "type" and inner not in TREES:
                    raise _refused(path, f"it is made of {inner!r}")


def _check_sample(path: Path, data: bytes) -> None:
    """The photos of zeros that the program was traced with, which PyTorch keeps as a pickle."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of a pickle of another kind than its own: the question is only what it holds
            torch.load(io.BytesIO(data), weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise _refused(path, "its example holds more than tensors") from error


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > MAX_JSON_BYTES:
        raise ValueError(f"{name} is too large")
    return json.loads(archive.read(name))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a tree of tables and lists that is neither, with the key it stands under; what stands under a key of
    AS_TEXT is a value whatever it is."""
    if key in AS_TEXT:
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _last(value: NDArray[Any]) -> int | None:
    return int(value.shape[-1]) if value.ndim > 1 else None


def _refused(path: Path, why: str) -> BundleError:
    return BundleError(
        what=f"{path} is not opened: {why}.",
        why="A .pt2 that rehead writes holds tensors and PyTorch's own operators alone; others could run what they like.",
        fix="Export again: rehead export BUNDLE --to torch",
    )
