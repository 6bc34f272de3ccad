"""The whole job in one function, read like the paper: scan, split, extract, tune, verify, export."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rehead import bundle as bundles
from rehead.bundle import Bundle, Head
from rehead.data.catalog import Catalog, scan, write_csv
from rehead.data.sources import open_source
from rehead.export import compare, in_batches, with_head
from rehead.extraction import (
    chosen_prefix,
    extract_missing,
    folds_of,
    job_order,
    open_store,
    photos_there,
    sample_pixels,
)
from rehead.features.cache import default_cache_folder
from rehead.features.engines import OnnxEngine, Prefix, resolve
from rehead.features.extract import too_many_bad
from rehead.features.store import Store
from rehead.nets.card import Card
from rehead.progress import Progress, Silent
from rehead.run_folder import Log, RunFolder
from rehead.tuning.head import fit_head
from rehead.tuning.recipe import Recipe
from rehead.verdict.metrics import Verdict, judge
from rehead.verdict.model_card import model_card

N_COMPARED = 32  # held-out photos on which the bundle is compared with the model


@dataclass(frozen=True)
class Tuned:
    """What a job gave. seconds: by phase, and "total". images: used, skipped and from_store, counts of photos."""

    run: Path
    bundle: Path
    verdict: Verdict
    recipe: Recipe
    classes: tuple[str, ...]
    head_note: str
    seconds: dict[str, float]
    images: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "seconds": self.seconds,
            "images": self.images,
            "verdict": self.verdict.to_dict(),
        }


def tune(
    source: object,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Tuned:
    """A verified model from labelled photos.

    source: a folder, manifest or archive; (paths, labels); a table; a sequence of (image, label); a Hugging Face data
        set. layout, valid, test: see `rehead.data.sources.open_source`.
    out: the run's folder, by default runs/<photos>-<backbone>-<n>; force replaces a run that is there.
    cache: where features are kept, by default REHEAD_CACHE or the user's cache folder.
    stop: asked during extraction; once true the job is finished with the photos that are there.
    settings: the fields of `Recipe`, such as backbone="efficientnet_lite0", head="linear", seed=0.
    Raises the errors of `rehead.errors`; nothing that was computed is lost.
    """
    recipe = Recipe.from_dict(settings)
    place = Path(cache).expanduser() if cache is not None else default_cache_folder(os.environ)
    progress, clock = Log(progress or Silent()), Clock()
    with RunFolder(out, force=force) as run:
        opened = open_source(source, layout=layout, valid=valid, test=test, cache=place, progress=progress)
        run.create(opened.name, recipe.backbone)
        progress.begin(run.path)
        run.write("recipe.toml", recipe.to_toml())
        catalog = scan(opened, seed=recipe.seed, valid_fraction=recipe.valid_fraction, progress=progress)
        if len(opened.skipped) > recipe.max_bad * len(opened.rows):
            raise too_many_bad(opened.skipped, len(opened.rows), recipe.max_bad)
        progress.note(_about(catalog))
        clock.lap("scan")

        prefix = chosen_prefix(catalog, recipe, place, progress)
        clock.lap("prepare")

        with open_store(place, prefix, recipe) as store:
            order = job_order(catalog, recipe)
            from_store = len(order) - len(store.missing([catalog.photos[i].digest for i in order]))
            extracted = extract_missing(catalog, order, prefix, recipe, store, progress, stop)
            train, held_out = photos_there(catalog, order, store)
            clock.lap("extract")

            progress.phase("Solving the head")
            head, head_note = _solve(catalog, train, store, recipe, progress)
            clock.lap("solve")

            features = store.read([catalog.photos[i].digest for i in held_out])
        verdict = judge(
            head.logits(features),
            catalog.labels(held_out),
            classes=catalog.classes,
            paths=[catalog.photos[i].path for i in held_out],
            side=catalog.held_out_side,
            n_train=len(train),
            partial=len(train) + len(held_out) + len(extracted.bad)
            < len(job_order(catalog, replace(recipe, limit=None))),
            leaks=catalog.leaks,
            notes=_notes(catalog, held_out),
        )
        progress.status(f"held-out accuracy {verdict.top1} on {verdict.top1.n} photos")
        clock.lap("verify")

        progress.phase("Writing the bundle")
        skipped = [*catalog.skipped, *extracted.bad.values()]
        facts = _facts(catalog, prefix.card, recipe, verdict)
        counts = {"train": len(train), "held_out": len(held_out), "skipped": len(skipped)}
        card = model_card(facts, head_note, run.path.name.strip("."), counts)
        model = with_head(prefix.onnx, head)
        written = bundles.write(run.path / "bundle", model=model, head=head, card=card, facts=facts)
        _compare(written, catalog, held_out, prefix, head)
        clock.lap("export")

        images = {"used": len(train) + len(held_out), "skipped": len(skipped), "from_store": from_store}
        seconds = clock.laps()
        write_csv(catalog, run.path / "catalog.csv")
        run.write("skipped.csv", _table(["path", "reason"], [(s.path, s.reason) for s in (*skipped, *catalog.copies)]))
        run.write_json("run.json", {"seconds": seconds, "images": images, "head": head_note})
        run.write_json("verdict.json", verdict.to_dict())
        path = run.finish()
    return Tuned(path, path / "bundle", verdict, recipe, catalog.classes, head_note, seconds, images)


class Clock:
    """Seconds by phase, and in all."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """All since the last lap was this phase."""
        now = time.monotonic()
        self._laps[phase], self._last = round(now - self._last, 3), now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": round(time.monotonic() - self._begun, 3)}


def _solve(catalog: Catalog, train: list[int], store: Store, recipe: Recipe, progress: Progress) -> tuple[Head, str]:
    features = store.read([catalog.photos[i].digest for i in train])
    labels, folds = catalog.labels(train), folds_of(catalog, train, recipe)
    device = resolve("torch", recipe.device)[1]
    return fit_head(features, labels, len(catalog.classes), folds, recipe, device, progress)


def _compare(written: Bundle, catalog: Catalog, held_out: list[int], prefix: Prefix, head: Head) -> None:
    """The bundle, loaded back, against the prefix and the head on held-out photos."""
    pixels = sample_pixels(catalog, held_out, prefix.card, N_COMPARED)
    engine = OnnxEngine(prefix, "cpu")
    compare(written, pixels, in_batches(engine, pixels, engine.batch, engine.workers), head)


def _about(catalog: Catalog) -> str:
    """One line on what was found."""
    n_train, n_held_out = len(catalog.on("train")), len(catalog.on(catalog.held_out_side))
    parts = [f"{len(catalog.photos)} photos of {len(catalog.classes)} classes ({catalog.layout})"]
    parts.append(f"{n_train} to learn from, {n_held_out} held out ({'ours' if catalog.ours else 'as given'})")
    for number, what in ((len(catalog.skipped), "skipped"), (len(catalog.copies), "copies counted once")):
        if number:
            parts.append(f"{number} {what}")
    if catalog.leaks:
        parts.append(f"{len(catalog.leaks)} held-out photos are also training photos")
    return ", ".join(parts)


def _notes(catalog: Catalog, held_out: list[int]) -> tuple[str, ...]:
    notes = []
    if catalog.leaks:
        notes.append(f"{len(catalog.leaks)} of the held-out photos are byte for byte in the training side too.")
    shown = {catalog.photos[i].label for i in held_out}
    if lacking := [label for label in catalog.classes if label not in shown]:
        notes.append(f"No held-out photo shows {', '.join(lacking)}.")
    return tuple(notes)


def _facts(catalog: Catalog, card: Card, recipe: Recipe, verdict: Verdict) -> dict[str, Any]:
    """What the bundle says of itself in `rehead.json`."""
    about = {name: value for name, value in asdict(card).items() if name != "preprocess"}
    return {
        "classes": list(catalog.classes),
        "preprocess": card.preprocess.to_dict(),
        "backbone": about,
        "recipe": {name: value for name, value in asdict(recipe).items() if value is not None},
        "verdict": verdict.to_dict(),
        "versions": versions(),
    }


def versions() -> Mapping[str, str]:
    """The versions of this program and of the libraries that decide its results."""
    return {name: metadata.version(name) for name in ("rehead", "numpy", "onnxruntime", "pillow", "timm", "torch")}


def _table(header: list[str], rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
