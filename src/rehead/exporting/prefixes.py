"""A backbone's frozen part as a graph, from the cache or made now: a second job on it needs no PyTorch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehead.bundle import Bundle, read
from rehead.data.in_use import InUse
from rehead.durable import FULL, write_bytes, write_text
from rehead.errors import BackboneError, BundleError, MissingExtra, WeightsUnavailable
from rehead.exporting.graph import ANOTHER, export_prefix, prefix_in
from rehead.features.engines import Prefix
from rehead.features.room import disk_full
from rehead.nets.card import Card, Place, architecture_of, card_folder, card_key, find_card, is_bundle, known_as, locate
from rehead.nets.lite import SIZES, lite_prefix
from rehead.progress import Progress
from rehead.runners import open_session

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone

BYTES_A_NUMBER = 4
MAX_GRAPH_BYTES = 2**31 - 1  # of protobuf, which a graph in one file is
INT8 = "int8"
METHOD = 2  # of quantising; another gives other features, and so other graphs in the cache


@dataclass(frozen=True)
class InCache(Prefix):
    """A prefix whose graph is in the cache. in_use: what keeps `rehead cache clear` from it while anybody has this."""

    in_use: InUse | None = field(default=None, compare=False, repr=False)


def check_backbone(name: str, weights: Path | None, arguments: dict[str, Any], cut: str, cache: Path) -> None:
    """Raises BackboneError, of one of its kinds, before anything else is done, for what cannot be had.

    Weights from a hub are fetched, a file of them is read; nothing is loaded where the cache has the exported network, and
    nothing fetched for a network that is too large to be exported.
    cut: the layer up to which weights must be complete.
    """
    place = _located(name, weights)
    if place.kind == "bundle" and place.path is not None:
        read(place.path)
        return
    if _is_drawn(name, place, arguments, cut) or find_card(cache, card_key(name, place, arguments, cut)) is not None:
        return
    _check_libraries(name)
    from rehead.nets.backbone import check_weights, n_parameters
    from rehead.nets.cut import Pooled
    from rehead.nets.hub import fetch_weights
    from rehead.nets.making import check_runs, created, preprocess_of

    network = created(architecture_of(name), arguments, 0, device="meta")
    if arguments:
        check_runs(network, name, arguments)
    if cut == "pool":  # of another layer the parameters are known when the network is cut
        _check_size(name, n_parameters(Pooled(network)))
    if place.kind == "hub":
        fetch_weights(name, network)
    elif weights is not None:
        check_weights(network, weights, cut, place.origin, preprocess_of(network, known_as(name), arguments))


def ready_prefix(
    name: str,
    *,
    weights: Path | None,
    arguments: dict[str, Any],
    cut: str,
    cache: Path,
    progress: Progress,
    pooled: bool = True,
) -> Prefix:
    """The prefix of a backbone with its card and its graph, from the cache or made now, which loads torch for all but `SIZES`.

    pooled: its features are averaged to one row a photo; otherwise they are what crosses the cut.
    Raises BackboneError, of one of its kinds, also for a network that cannot be exported.
    """
    place = _located(name, weights)
    key = card_key(name, place, arguments, cut, pooled)
    folder = card_folder(cache, key)
    in_use = InUse(folder)  # before its card is looked for
    card = find_card(cache, key)
    if place.kind == "bundle" and place.path is not None:
        card = _of_bundle(place.path, cache, folder, card)
        return InCache(card, folder, None, "onnxruntime", in_use=in_use)

    @functools.cache
    def load() -> Backbone:
        _check_libraries(name)
        from rehead.nets.backbone import load_backbone

        return load_backbone(name, weights=weights, arguments=arguments, cut=cut)

    def network() -> Any:
        return load().cut_at(cut, pooled=pooled)[0]

    if pooled and _is_drawn(name, place, arguments, cut):
        card = card or _kept(cache, folder, *_drawn(known_as(name), place))
        return InCache(card, folder, network, "onnxruntime", in_use=in_use)
    if card is None:
        progress.phase(f"Preparing {name} (once)")
        prefix, made = load().cut_at(cut, pooled=pooled)
        if place.kind == "file" and load().loaded == "in order":
            progress.note(
                f"The weights have other names than the layers of {name}: they were matched by their order alone."
            )
        _check_size(name, made.parameters)
        card = _kept(cache, folder, made, lambda path: export_prefix(prefix, made.preprocess, path))
    return InCache(card, folder, network, in_use=in_use)


def prefix_there(
    name: str, *, weights: Path | None, arguments: dict[str, Any], cut: str, cache: Path, pooled: bool
) -> Prefix | None:
    """The same where the cache has it, without its network."""
    key = card_key(name, _located(name, weights), arguments, cut, pooled)
    if find_card(cache, key) is None:
        return None
    in_use = InUse(card_folder(cache, key))  # before it is looked for again: it may have been cleared
    card = find_card(cache, key)
    return None if card is None else InCache(card, card_folder(cache, key), None, in_use=in_use)


def weights_digest(weights: Path) -> str:
    """By what a card knows the weights of this file, or of this bundle. Raises WeightsUnavailable, BundleError."""
    if is_bundle(weights):
        return _digest(prefix_in(read(weights).model))
    return str(locate(weights.name, weights).digest)


def int8_prefix(prefix: Prefix, cache: Path, progress: Progress) -> Prefix:
    """The prefix in 8 bits, from the cache or made now. Raises BackboneError for one that is in 8 bits already."""
    if prefix.card.quantized is not None:
        raise BackboneError(
            what=f"The backbone {prefix.card.name} is in 8 bits already.",
            why=f"It is {prefix.card.origin}.",
            fix="Leave --quantize out.",
        )
    key = f"{prefix.folder.name}-int8-{METHOD}"  # made once, whatever ONNX Runtime comes later: features rest on it
    folder = card_folder(cache, key)
    in_use, card = InUse(folder), find_card(cache, key)
    if card is None:
        progress.phase(f"Quantising {prefix.card.name} (once)")
        with _room(cache, prefix.card):
            graph = _in_8_bits(prefix, folder)
        card = replace(prefix.card, weights=_digest(graph), quantized=INT8)
        card = _kept(cache, folder, card, lambda path: write_bytes(path, graph))
    card = replace(prefix.card, weights=card.weights, quantized=INT8, graph_bytes=card.graph_bytes)
    return InCache(card, folder, None, "onnxruntime", original=prefix, in_use=in_use)


def _in_8_bits(prefix: Prefix, folder: Path) -> bytes:
    from rehead.exporting.quantise import quantise, views

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:  # on the cache's disk, where there has to be room anyway
        made = Path(place) / "int8.onnx"
        quantise(prefix.onnx, made, views(prefix.card.preprocess))
        return made.read_bytes()


def _is_drawn(name: str, place: Place, arguments: dict[str, Any], cut: str) -> bool:
    """Whether the prefix is one that `nets/lite.py` makes, for which nobody needs PyTorch."""
    return known_as(name) in SIZES and place.kind == "package" and not arguments and cut == "pool"


def _drawn(name: str, place: Place) -> tuple[Card, Callable[[Path], None]]:
    """The card of a prefix that needs no PyTorch, and what writes its graph."""
    card, graph = lite_prefix(name, place)
    return card, lambda path: write_bytes(path, graph)


def _located(name: str, weights: Path | None) -> Place:
    try:
        place = locate(name, weights)
    except WeightsUnavailable:
        if weights is None and known_as(name) not in SIZES:
            _check_libraries(name)  # which would be the next to be missed
        raise
    if place.kind == "hub":  # whose weights are known by the version of timm
        _check_libraries(name)
    return place


def _check_libraries(name: str) -> None:
    """Raises MissingExtra where what makes and runs a network is not installed."""
    for library in ("torch", "timm"):
        if importlib.util.find_spec(library) is None:
            otherwise = "; or take a bundle as the backbone, which needs none: --backbone BUNDLE"
            raise MissingExtra(library, "tune", f"The backbone {name}", otherwise)


def _check_size(name: str, parameters: int) -> None:
    n_bytes = BYTES_A_NUMBER * parameters
    if n_bytes > MAX_GRAPH_BYTES:
        raise BackboneError(
            what=f"The network {name} cannot be exported to ONNX.",
            why=f"Its {parameters / 1e6:,.0f} million parameters take {n_bytes / 1e9:.1f} GB; a graph holds 2 GB.",
            fix=ANOTHER,
        )


def _kept(cache: Path, folder: Path, card: Card, write: Callable[[Path], None]) -> Card:
    """The card, with the graph that `write` writes beside it. Raises BackboneError for a graph that cannot be run."""
    with _room(cache, card):
        folder.mkdir(parents=True, exist_ok=True)
        graph = folder / "prefix.onnx"
        write(graph)
        _check_runs(graph, card.name)  # before there is a card, by which every later job would take it
        card = replace(card, graph_bytes=graph.stat().st_size)
        write_text(folder / "card.json", card.to_json())
    return card


def _check_runs(graph: Path, name: str) -> None:
    """Raises BackboneError where ONNX Runtime does not open a graph, which is then gone."""
    try:
        open_session(graph)
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's own share no base but Exception
        graph.unlink(missing_ok=True)
        raise BackboneError(
            what=f"The network {name} cannot be run by ONNX Runtime.", why=str(error).split("\n")[0], fix=ANOTHER
        ) from error


@contextlib.contextmanager
def _room(cache: Path, card: Card) -> Iterator[None]:
    """Raises DiskFull where a graph finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(cache, BYTES_A_NUMBER * card.parameters, f"the network {card.name}") from error


def _of_bundle(path: Path, cache: Path, folder: Path, known: Card | None) -> Card:
    """The card of a bundle's prefix, whose graph is in `folder` of the cache then. Its weights are known by the graph, not by
    what it says; all else is as it says now. known: the card that was written with the same graph, if there is one."""
    bundle = read(path)
    if known is not None:
        return replace(_card_of(bundle, known.weights), graph_bytes=known.graph_bytes)
    graph = prefix_in(bundle.model)
    return _kept(cache, folder, _card_of(bundle, _digest(graph)), lambda place: write_bytes(place, graph))


def _card_of(bundle: Bundle, weights: str) -> Card:
    about = bundle.facts["backbone"]
    quantized = about.get("quantized")
    try:
        if quantized not in (None, INT8):  # it becomes part of a folder's name
            raise ValueError(f"quantized is {quantized!r}")
        return Card(
            name=str(about["name"]),
            architecture=str(about["architecture"]),
            weights=weights,
            origin=f"a bundle, and before that: {about['origin']}",
            licence=str(about["licence"]),
            shape=(int(about["width"]),),
            parameters=int(about["parameters"]),
            macs=int(about["macs"]),
            preprocess=bundle.preprocess,
            cut=str(about.get("cut", "pool")),
            arguments=dict(about.get("arguments", {})),
            learned=tuple(about.get("learned", ())),
            quantized=quantized,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            what=f"The bundle {bundle.folder} does not say what its backbone is.",
            why=f"{type(error).__name__}: {error}.",
            fix="Name a backbone instead: --backbone efficientnet_lite0",
        ) from error


def _digest(graph: bytes) -> str:
    return hashlib.sha256(graph).hexdigest()
