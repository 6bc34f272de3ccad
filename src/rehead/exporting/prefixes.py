"""A backbone's frozen part as a graph, from the cache or made now: a second job on it needs no PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehead.durable import FULL, write_text
from rehead.exporting.graph import export_prefix
from rehead.features.engines import Prefix
from rehead.features.room import disk_full
from rehead.nets.card import architecture_of, card_folder, card_key, find_card, locate
from rehead.progress import Progress

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone

BYTES_A_NUMBER = 4


def check_backbone(name: str, weights: Path | None, arguments: dict[str, Any], cut: str, cache: Path) -> None:
    """Raises BackboneError, of one of its kinds, before anything else is done, for what cannot be had.

    Weights from a hub are fetched, a file of them is read; nothing is loaded where the cache has the exported network.
    cut: the layer up to which weights must be complete.
    """
    place = locate(name, weights)
    if find_card(cache, card_key(name, place, arguments, cut)) is not None:
        return
    from rehead.nets.backbone import check_weights, created
    from rehead.nets.hub import fetch_weights

    network = created(architecture_of(name), arguments, 0, device="meta")
    if place.kind == "hub":
        fetch_weights(name, network)
    elif weights is not None:
        check_weights(network, weights, cut, place.origin)


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
    """The prefix of a backbone with its card and its graph, from the cache or made now (which loads torch).

    pooled: its features are averaged to one row a photo; otherwise they are what crosses the cut.
    """
    place = locate(name, weights)
    key = card_key(name, place, arguments, cut, pooled)
    folder = card_folder(cache, key)

    @functools.cache
    def load() -> Backbone:
        from rehead.nets.backbone import load_backbone

        return load_backbone(name, weights=weights, arguments=arguments, cut=cut)

    card = find_card(cache, key)
    if card is None:
        progress.phase(f"Preparing {name} (once)")
        prefix, card = load().cut_at(cut, pooled=pooled)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            export_prefix(prefix, card.preprocess, folder / "prefix.onnx")
            write_text(folder / "card.json", card.to_json())
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise disk_full(cache, BYTES_A_NUMBER * card.parameters, f"the network {name}") from error
    return Prefix(card, folder, lambda: load().cut_at(cut, pooled=pooled)[0])
