"""Weights files, read without executing anything, and matched to a network's tensors.

Only what the prefix needs must be there: tensors of the layers that are cut away may be missing or of another shape.
"""

from __future__ import annotations

import itertools
import pickle
import re
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rehead.durable import sha256_file
from rehead.errors import BackboneError, UnsafeWeights, WeightsMismatch, counted
from rehead.nets.chain import Chain

WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "state_dict_ema", "teacher",
)  # fmt: skip
DEEPEST = 4  # tables within tables that are looked into
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.")
# torch hub's convention: the beginning of the file's SHA-256. Digits alone are taken for a date.
DIGEST_IN_NAME = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.")
NOT_SAVED = "they are not what torch.save writes"
NAME_IT = "Name the network these weights were made for, and what it needs with --backbone-arg."
SHOWN = 4  # differing names in an error
PARTS = {
    "weight": "weight", "gamma": "weight", "bias": "bias", "beta": "bias", "running_mean": "mean", "moving_mean": "mean",
    "running_var": "variance", "moving_variance": "variance", "moving_var": "variance",
}  # fmt: skip
# tables that some files have and networks make anew
COMPUTED = ("attn_mask", "freqs", "freqs_cos", "freqs_sin", "inv_freq")
OF_PRETRAINING = ("mask_token", "decoder_pos_embed")  # by masked pictures
# by the class of a network: what official weights have and no forward reads, so that timm itself loads them with strict=False
NEVER_USED = {"DLA": re.compile(r"level\d(\.tree[12])*\.project\.")}

Tensors = dict[str, torch.Tensor]
# tensors of a network that weights do not have, with the shape of what they have under that name
Lacking = dict[str, tuple[int, ...] | None]


def read_weights(path: Path) -> Tensors:
    """The tensors in a .safetensors, .pth, .pt or .bin file, by name, without the usual wrappers.

    Raises UnsafeWeights for a file that would run code, WeightsMismatch for one that is damaged or is not as it is named.
    """
    match = DIGEST_IN_NAME.search(path.name)
    if match and not sha256_file(path).startswith(match[1]):
        raise WeightsMismatch(
            what=f"{path} is not the file its name says.",
            why=f"Its SHA-256 does not begin with {match[1]}.",
            fix="Download it again, or rename it if you changed it on purpose.",
        )
    tensors = _unwrapped(_read(path))
    if not tensors:
        raise WeightsMismatch(
            what=f"{path} holds no table of named tensors.", fix="Save it with torch.save(model.state_dict(), ...)."
        )
    return _without_prefixes(tensors)


def load_into(
    network: nn.Module, prefix: nn.Module, tensors: Tensors, source: str, chain: Callable[[], Chain]
) -> tuple[str, Lacking]:
    """Puts `tensors` into a network; "by name", "by timm's converter" or "in order" says how they were matched. And what of
    the network is as it was.

    prefix: the part of the network that must be complete. chain: the network taken apart, asked for only where they do not
    fit. Raises WeightsMismatch with the first differences, and the cut up to which they are complete.
    """
    how, named = matched(network, prefix, tensors, source, chain)
    own = network.state_dict()
    fitting = _fitting(own, named)
    network.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    return how, {name: tuple(named[name].shape) if name in named else None for name in left}


def matched(
    network: nn.Module, prefix: nn.Module, tensors: Tensors, source: str, chain: Callable[[], Chain]
) -> tuple[str, Tensors]:
    """How they are matched, and the tensors by the network's own names, also those of another shape and others. Raises
    WeightsMismatch as `load_into` does."""
    needed = _needed(network, prefix)
    own = network.state_dict()
    foreign: list[str] = []
    parts = [tensors, *_parts(tensors)]
    for how, candidate in _candidates(network, parts):
        if needed <= set(_fitting(own, candidate)):
            if not (surplus := _surplus(network, candidate, needed)):
                return how, candidate
            foreign = surplus
    if foreign:
        raise _of_another(source, foreign)
    if (in_order := _in_order(own, tensors, needed)) is not None:
        return "in order", in_order
    nearest = max(parts, key=lambda part: len(needed & part.keys()))
    raise _mismatch(source, own, nearest, needed, chain)


def classifier_names(network: nn.Module) -> set[str]:
    """The tensors of the last layer, which pooled features do not pass."""
    prefixes = tuple(f"{name}." for name in _classifiers(network))
    return {name for name in network.state_dict() if prefixes and name.startswith(prefixes)}


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise UnsafeWeights(
                what=f"{path} holds more than tensors; loading it could run code, so it was not loaded.",
                why=_first_line(error),
                fix="Ask its author for .safetensors, or for torch.save(model.state_dict(), ...).",
            ) from None
        raise _damaged(path, NOT_SAVED) from None
    except (EOFError, KeyError):
        raise _damaged(path, NOT_SAVED) from None
    except Exception as error:  # the readers raise a dozen kinds for damaged files
        raise _damaged(path, f"{type(error).__name__}: {_brief(str(error))}".rstrip(": ")) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line or "lobal" in line]
    return _brief(lines[0]) if lines else ""


def _damaged(path: Path, reason: str) -> WeightsMismatch:
    size = path.stat().st_size
    return WeightsMismatch(
        what=f"{path} cannot be read as weights.",
        why=f"It has {size} bytes; {reason}.",
        fix="It may be cut short or of another kind: copy it again, and name a .safetensors, .pth or .pt file.",
    )


def _brief(text: str) -> str:
    """The first line of a library's words, whole words of it."""
    return textwrap.shorten((text.splitlines() or [""])[0], 200, placeholder=" ...")


def _unwrapped(value: Any, depth: int = DEEPEST) -> Tensors:
    """The first table of tensors under the usual names, else those beside them."""
    if not isinstance(value, Mapping) or not depth:
        return {}
    for name in WRAPPERS:
        if inner := _unwrapped(value.get(name), depth - 1):
            return inner
    return {str(n): t for n, t in value.items() if isinstance(t, torch.Tensor)}


def _without_prefixes(tensors: Tensors) -> Tensors:
    """Numbers beside the weights, such as how many models were averaged, need not have the prefix."""
    again = True
    while again:
        again = False
        for prefix in PREFIXES:
            if {name.startswith(prefix) for name, tensor in tensors.items() if tensor.ndim} == {True}:
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                again = True
    return tensors


def _parts(tensors: Tensors) -> list[Tensors]:
    """What a file has of each part of a larger model, such as `backbone` beside `head`, by the names within it."""
    tops = dict.fromkeys(_top(name) + "." for name in tensors if "." in name)
    return [
        _without_prefixes({n.removeprefix(top): t for n, t in tensors.items() if n.startswith(top)}) for top in tops
    ]


def _candidates(network: nn.Module, parts: list[Tensors]) -> Iterator[tuple[str, Tensors]]:
    """Ways to match them, and what each gives by the network's own names."""
    for part in parts:
        yield "by name", part
        if (converted := _converted(network, part)) is not None:
            yield "by timm's converter", converted


def _fitting(own: Tensors, tensors: Tensors) -> Tensors:
    """Those that a network has too, in the same shape."""
    return {name: tensor for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}


def _needed(network: nn.Module, prefix: nn.Module) -> set[str]:
    """The network's tensors that the prefix uses; counters of batches decide nothing."""
    used = {id(t) for t in (*prefix.parameters(), *prefix.buffers())}
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    head = classifier_names(network) if hasattr(prefix, "network") else set()
    saved = set(network.state_dict())
    return {
        name
        for name, tensor in state.items()
        if id(tensor) in used and name in saved and name not in head and not name.endswith("num_batches_tracked")
    }


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    """The paths of a timm network's last layers, such as ("fc",)."""
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _converted(network: nn.Module, tensors: Tensors) -> Tensors | None:
    """What timm's own converter for this family makes of names of other origin."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(dict(tensors), network)
    except Exception:  # a converter fails in its own ways on names it does not know
        return None
    return {n: t for n, t in converted.items() if isinstance(t, torch.Tensor)} if isinstance(converted, dict) else None


def _in_order(own: Tensors, tensors: Tensors, needed: set[str]) -> Tensors | None:
    """Tensors matched by their place, when all that is needed has the same shapes in the same order, and no name says that a
    tensor is another part of its layer: a file may be sorted by names."""
    places = [name for name in own if own[name].ndim]
    given = {name: t for name, t in tensors.items() if t.ndim}  # without counters of batches, whatever they are called
    pairs = dict(zip(places, given, strict=False))
    complete = all(
        name in pairs and given[pairs[name]].shape == own[name].shape and _may_be(pairs[name], name) for name in needed
    )
    return {name: given[other] for name, other in pairs.items()} if complete and len(given) <= len(places) + 2 else None


def _may_be(given: str, own: str) -> bool:
    """Whether two names are of the same part of a layer, or one of them is of no known part."""
    first, second = (PARTS.get(name.rpartition(".")[2]) for name in (given, own))
    return first is None or second is None or first == second


def _surplus(network: nn.Module, tensors: Tensors, needed: set[str]) -> list[str]:
    """Those that the network has no place for, in the layers that are needed and beside them; what it computes itself, what
    only pretraining used, and what is never used, apart."""
    known = {*network.state_dict(), *dict(network.named_buffers()), *OF_PRETRAINING}
    tops = {_top(name) for name in needed} - {_top(name) for name in _classifiers(network)}
    has_tokens = any("." not in name for name in needed)
    never_used = NEVER_USED.get(type(network).__name__)
    return [
        name
        for name, tensor in tensors.items()
        if name not in known
        and not (never_used and never_used.match(name))
        and (_top(name) in tops if "." in name else has_tokens)
        and name.rpartition(".")[2] not in COMPUTED
        and tensor.is_floating_point()
        and tensor.numel() > 1  # a count, or a scale that a tool noted
    ]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _of_another(source: str, foreign: list[str]) -> WeightsMismatch:
    shown = ", ".join(foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
    return WeightsMismatch(
        what=f"The weights of {source} are those of another network: it has no place for {counted(len(foreign), 'tensor')}.",
        why=f"The file has, among the layers that are used: {shown}.",
        fix=NAME_IT,
    )


def _mismatch(
    source: str, own: Tensors, tensors: Tensors, needed: set[str], chain: Callable[[], Chain]
) -> WeightsMismatch:
    missing = [n for n in own if n in needed and n not in tensors]
    other = [n for n in own if n in needed and n in tensors and tensors[n].shape != own[n].shape]
    shown = [f"{n}: {tuple(own[n].shape)} wanted, {tuple(tensors[n].shape)} in the file" for n in other[:SHOWN]]
    shown += [f"{n}: {tuple(own[n].shape)} wanted, not in the file" for n in missing[: SHOWN - len(shown)]]
    complete = _complete_until(chain, needed, {*missing, *other})
    kinds = (len(missing), "is missing", "are missing"), (len(other), "has another shape", "have other shapes")
    said = [f"{counted(n, 'tensor')} {one if n == 1 else more}" for n, one, more in kinds if n]
    return WeightsMismatch(
        what=f"The weights of {source} do not fit: {', '.join(said)}.",
        why="; ".join(shown),
        fix=f"All up to {complete} is there: cut behind it with --cut {complete}." if complete else NAME_IT,
    )


def _complete_until(chain: Callable[[], Chain], needed: set[str], lacking: set[str]) -> str | None:
    """The last layer up to which nothing is lacking, where that is more than the first one. None where, in order of data flow,
    the file goes on behind the first tensor that it lacks: it is of another network."""
    try:
        pieces = chain()
    except BackboneError:  # it can be cut at its end alone
        return None
    names = [list(pieces.piece(-1, layer.end).state_dict()) for layer in pieces.layers]  # up to each
    in_flow = (name for name in dict.fromkeys(itertools.chain.from_iterable(names)) if name in needed)
    ends = lacking.issuperset(itertools.dropwhile(lambda name: name not in lacking, in_flow))
    n_complete = len(list(itertools.takewhile(lacking.isdisjoint, names)))
    return pieces.layers[n_complete - 1].name if ends and n_complete > 1 else None
