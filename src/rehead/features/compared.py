"""Whether an engine may be used: by comparison with the reference on real photos, not by trust. No torch here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rehead.errors import BackboneError, EngineError
from rehead.features.engines import ENGINES, IN_BFLOAT16, Engine, OnnxEngine, Open, Prefix
from rehead.heap import hand_back
from rehead.nets.card import Card, read_agreement, write_agreement

MOST_OFF = {"fp32": 1e-3, "bf16": 6e-2}  # largest difference from the reference, relative to the largest feature
# Mean cosine of features with those in float32, and of any photo: where all layers round, single numbers differ by a fifth.
LEAST_KEPT = {IN_BFLOAT16: (0.98, 0.9), "int8": (0.95, 0.0)}
DIRECTION = "direction kept"


def open_engine(
    prefix: Prefix, name: str, device: str, pixels: Callable[[], NDArray[np.uint8]], opened: Open | None = None
) -> Engine:
    """The engine `name`, after it was compared with the reference on `pixels()` (n, h, w, 3), once for each version.

    opened: opens it elsewhere, where another machine has the device.
    How far they agree is recorded beside the prefix. A prefix in 8 bits is compared with the one in float32 besides, by the
    direction of its features. Raises EngineError when they do not agree, BackboneError when the network gives no numbers.
    """
    engine = (opened or ENGINES[name])(prefix, device)
    key = f"{engine.name} {engine.version} {device} {engine.precision}"
    measured = read_agreement(prefix.folder)
    is_known = key in measured and (prefix.original is None or DIRECTION in measured)
    if is_known:
        return engine
    seen = pixels()
    write_agreement(prefix.folder, key, _agreement(prefix, engine, (name, device), seen))
    if prefix.original is not None:
        kept = float(_directions_kept(engine, OnnxEngine(prefix.original, "cpu"), seen).mean())
        if not kept >= LEAST_KEPT["int8"][0]:
            raise _too_coarse(prefix.card, kept)
        write_agreement(prefix.folder, DIRECTION, kept)
    hand_back()  # what the reference took
    return engine


def _agreement(prefix: Prefix, engine: Engine, asked: tuple[str, str], pixels: NDArray[np.uint8]) -> float:
    """How far the engine that was asked for and the reference agree: their largest difference, or the mean cosine."""
    is_reference = asked == (prefix.reference, "cpu")
    reference = engine if is_reference else ENGINES[prefix.reference](prefix, "cpu")
    check_numbers(prefix.card, reference(pixels[: reference.batch]))
    if engine.precision in LEAST_KEPT:
        kept, least = _directions_kept(engine, reference, pixels), LEAST_KEPT[engine.precision]
        if not (kept.mean() >= least[0] and kept.min() >= least[1]):
            said = f"Their features have a mean cosine of {kept.mean():.3f}, of one photo {kept.min():.3f}; "
            raise _disagrees(engine.name, said + f"{least[0]:g} and {least[1]:g} are wanted.")
        return float(kept.mean())
    measured = difference(engine, reference, pixels)
    if not measured <= MOST_OFF[engine.precision]:
        said = f"The largest difference is {measured:.2g} of the largest feature; {MOST_OFF[engine.precision]:g} is allowed."
        raise _disagrees(engine.name, said)
    return measured


def direction_kept(prefix: Prefix) -> float | None:
    """The mean cosine between features in 8 bits and in float32 of the same photos; None where it was not measured yet."""
    return read_agreement(prefix.folder).get(DIRECTION)


def _directions_kept(engine: Engine, original: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The cosine of each photo's features, (n,)."""
    size = min(engine.batch, original.batch)
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    ours, wanted = (
        np.concatenate([run(part) for part in parts]).reshape(len(pixels), -1) for run in (engine, original)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = (ours * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)
    has_direction = np.any(ours, axis=1) | np.any(wanted, axis=1)
    return np.where(has_direction, cosines, 1)


def _too_coarse(card: Card, kept: float) -> EngineError:
    return EngineError(
        what=f"The network {card.name} cannot be computed in 8 bits: its features would be others.",
        why=f"Their mean cosine with those in float32 is {kept:.2f} on these photos; {LEAST_KEPT['int8'][0]:g} is wanted.",
        fix="Leave --quantize out.",
    )


def check_numbers(card: Card, features: NDArray[np.float32]) -> None:
    """Raises BackboneError when features hold what is no number: then no engine can be compared, nor a head solved."""
    if not np.isfinite(features).all():
        raise BackboneError(
            what=f"What the backbone {card.name} gives for these photos is no numbers (NaN or infinite).",
            why=f"Its weights are of: {card.origin}.",
            fix="The weights file is likely damaged: copy or download it again, or name another with --weights FILE.",
        )


def difference(engine: Engine, reference: Engine, pixels: NDArray[np.uint8]) -> float:
    """The largest difference between two engines' features of the same pixels, relative to the largest feature."""
    pixels = pixels[: min(engine.batch, reference.batch)]
    got, wanted = engine(pixels), reference(pixels)
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def _disagrees(name: str, why: str) -> EngineError:
    return EngineError(
        what=f"The engine {name} does not agree with the reference on these photos.",
        why=why,
        fix="Run with --engine torch." if name == "onnxruntime" else "Run with --device cpu and no --engine.",
    )
