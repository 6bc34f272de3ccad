"""Layers below the head learn too: what is frozen is computed once and kept, what learns is trained from the store.

In this order: which layers learn and where the network is cut; the activations there, for each view of a photo; a head
solved on the frozen features, so that the layers below are not wrecked by a random one; the training, which goes on from
its last checkpoint; the tuned network as a graph.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip
from rehead.data.split import fold_numbers
from rehead.errors import PhotoError
from rehead.export import export_prefix, ready_prefix
from rehead.extraction import extract_missing, folds_of, in_store, job_order, open_store, photos_there
from rehead.features.engines import resolve
from rehead.features.extract import too_many_bad
from rehead.features.store import Store
from rehead.features.views import PLAIN, augmented, view_names
from rehead.nets.card import Card, with_fit
from rehead.parallel import n_cores, ordered_map
from rehead.pixels import Preprocess, prepare
from rehead.progress import Clock, Progress
from rehead.run_folder import BODY, RunFolder
from rehead.solution import Solution
from rehead.tuning.curves import curves_svg
from rehead.tuning.labels import chosen_thresholds
from rehead.tuning.layers import HEAD, POOL, Stage
from rehead.tuning.plan import Plan, check_mixing, described, planned
from rehead.tuning.recipe import Recipe
from rehead.tuning.scale import Scale
from rehead.tuning.tasks import first_head, fit_task
from rehead.verdict.metrics import wilson

CHECKPOINT_EVERY_S = 60.0  # at most this much training is lost by SIGKILL
SMALL = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # enough to know that it decodes
METRICS, CURVES = "metrics.jsonl", "curves.svg"


def tune_layers(
    catalog: Catalog,
    recipe: Recipe,
    cache: Path,
    progress: Progress,
    clock: Clock,
    stop: Callable[[], bool],
    run: RunFolder,
) -> Solution:
    """The recipe's layers and the head, trained; Ctrl-C during extraction goes on with the photos that are there."""
    import torch

    from rehead.nets.backbone import load_backbone
    from rehead.nets.cut import Pooled
    from rehead.nets.heads import head_from_module, module_from_head
    from rehead.tuning.checkpoint import read_checkpoint, write_checkpoint
    from rehead.tuning.feed import Feed, PhotoFeed, StoredFeed
    from rehead.tuning.losses import UNITS
    from rehead.tuning.modes import adapt_norms
    from rehead.tuning.train import Job, logits_of, train_layers

    progress.phase(f"Loading {recipe.backbone}")
    backbone = load_backbone(recipe.backbone, weights=recipe.weights, arguments=recipe.backbone_args)
    order = job_order(catalog, recipe)
    stages = [Stage(layer.name, layer.parameters, layer.macs, layer.shape) for layer in backbone.layers]
    plan = planned(recipe, stages, len(order), cache)
    check_mixing(recipe, stages, plan)
    for line in described(stages, plan, recipe, len(order)):
        progress.note(line)
    clock.lap("prepare")

    extracted = _extracted(catalog, recipe, plan, order, cache, progress, stop)
    clock.lap("extract")

    train, held_out = extracted.train, extracted.held_out
    photos = [*train, *held_out]
    labels = catalog.labels(photos)
    scale = Scale.of(labels[: len(train)]) if catalog.task == "regression" else None
    labels = scale.standardised(labels) if scale else labels
    card = extracted.card or _photo_card(backbone.cut_at(POOL)[1], recipe)
    feed: Feed
    if plan.cut is not None:
        feed = StoredFeed(extracted.views, labels, recipe.seed)
        body: Any = backbone.suffix(plan.cut)
    else:

        def pixels(place: int, seed: int | None) -> NDArray[np.uint8]:
            photo = catalog.photos[photos[place]]
            return augmented(
                "none" if seed is None else recipe.augment, catalog.read(photo), card.preprocess, seed or 0
            )

        feed = PhotoFeed(pixels, labels, card.preprocess.mean, card.preprocess.std, recipe.seed)
        body = Pooled(backbone.network)
    learn, watch = _slices(catalog, train, recipe)
    device = resolve("torch", recipe.device)[1]

    state = read_checkpoint(run.path)
    progress.phase("Solving the head")
    if recipe.norm == "adapt" and recipe.warm_head:
        adapt_norms(body.to(device), (x.to(device) for x in feed.plain(learn, recipe.course.batch_size)))
    first, note = _first_head(body, feed, catalog, train, recipe, device, progress)
    unit = UNITS[catalog.task]
    model = torch.nn.Sequential()
    model.add_module("body", body)
    model.add_module(HEAD, module_from_head(first))
    clock.lap("solve")

    n_left = (recipe.course.epochs - (state.epoch if state else 0)) * len(learn)
    progress.phase("Training", n_left)
    saved = [time.monotonic()]

    def save(state: Any) -> None:
        write_checkpoint(run.path, state)
        saved[0] = time.monotonic()

    def report(facts: dict[str, Any]) -> None:
        history.append(facts)
        run.write(METRICS, "".join(json.dumps(entry) + "\n" for entry in history))
        run.write(CURVES, curves_svg(history, recipe.course, n_steps, unit))
        progress.note(_epoch_line(facts, recipe.course.epochs))

    def told(n: int, text: str) -> None:
        progress.advance(n)
        progress.status(text)

    n_steps = math.ceil(math.ceil(len(learn) / recipe.course.batch_size) / recipe.course.accumulate)
    history: list[dict[str, Any]] = list(state.history) if state else []
    groups = [list(backbone[name].parameters()) for name in plan.learning] + [list(model[1].parameters())]
    job = Job(
        model=model,
        groups=groups,
        feed=feed,
        course=recipe.course,
        learn=learn,
        watch=watch,
        n_classes=catalog.n_outputs,
        task=catalog.task,
        device=device,
        report=report,
        save=save,
        due=lambda: time.monotonic() - saved[0] > CHECKPOINT_EVERY_S,
        progress=told,
        stop=stop,
    )
    state = train_layers(job, state)
    clock.lap("train")

    logits = logits_of(model, feed, np.arange(len(train), len(photos)), "cpu")
    head = head_from_module(model[1], first.kind, first.activation)
    if scale:
        logits, head = scale.restored(logits), scale.on(head)
    export_prefix(Pooled(backbone.network).eval(), card.preprocess, run.path / BODY)
    kept = f", epoch {state.best_epoch} of {state.epoch} kept by a slice of the training side" if len(watch) else ""
    return Solution(
        head=head,
        thresholds=_thresholds(catalog, model, feed, watch),
        note=f"{note}; then trained with {', '.join(plan.learning)} for {state.epoch} epochs by {recipe.optimizer}{kept}",
        train=train,
        held_out=held_out,
        logits=logits,
        body=run.path / BODY,
        features=lambda pixels: _by_network(backbone.network, card, pixels),
        card=card,
        bad=extracted.bad,
        n_stored=extracted.n_stored,
        learned=plan.learning,
    )


@dataclass(frozen=True)
class _Extracted:
    """views: (n, *shape) float16 each: of train and held-out photos the first, of train photos the others."""

    train: list[int]
    held_out: list[int]
    views: list[NDArray[np.float16]]
    card: Card | None
    bad: dict[int, Skip]
    n_stored: int


def _extracted(
    catalog: Catalog,
    recipe: Recipe,
    plan: Plan,
    order: list[int],
    cache: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> _Extracted:
    if plan.cut is None:
        bad = _unreadable(catalog, order, recipe, progress)
        good = sorted(i for i in order if i not in bad)
        train = [i for i in good if catalog.photos[i].side == "train"]
        held_out = [i for i in good if catalog.photos[i].side == catalog.held_out_side]
        return _Extracted(train, held_out, [], None, bad, 0)
    weights = Path(recipe.weights).expanduser() if recipe.weights is not None else None
    prefix = ready_prefix(
        recipe.backbone,
        weights=weights,
        arguments=dict(recipe.backbone_args),
        cut=plan.cut,
        cache=cache,
        progress=progress,
        pooled=False,
    )
    if recipe.fit not in ("default", "auto"):
        prefix = type(prefix)(with_fit(prefix.card, recipe.fit), prefix.folder, prefix.network)
    views: list[NDArray[np.float16]] = []
    train, held_out, bad, n_stored = [], [], {}, 0
    for view in view_names(recipe.augment, recipe.views):
        with open_store(cache, prefix, recipe, view) as store:
            if view == PLAIN:
                n_stored = len(order) - len(store.missing([catalog.photos[i].digest for i in order]))
                bad = extract_missing(catalog, order, prefix, recipe, store, progress, stop).bad
                train, held_out = photos_there(catalog, order, store)
                views.append(_read(store, catalog, [*train, *held_out]))
                continue
            extract_missing(catalog, train, prefix, recipe, store, progress, stop, view)
            if len(in_store(catalog, train, store)) == len(train):
                views.append(_read(store, catalog, train))
            else:
                progress.note(f"The view {view} is not whole and is left out.")
    return _Extracted(train, held_out, views, prefix.card, bad, n_stored)


def _unreadable(catalog: Catalog, order: list[int], recipe: Recipe, progress: Progress) -> dict[int, Skip]:
    """Photos that cannot be decoded. Raises SourceError when they are too many."""

    def work(i: int) -> Skip | None:
        try:
            prepare(catalog.read(catalog.photos[i]), SMALL)
        except PhotoError as error:
            return Skip(catalog.photos[i].path, error.what)
        except OSError as error:
            return Skip(catalog.photos[i].path, f"cannot be read: {error.strerror or error}")
        return None

    progress.phase("Checking", len(order))
    bad: dict[int, Skip] = {}
    for i, skip in zip(order, ordered_map(work, order, workers=n_cores(), ahead=64), strict=True):
        progress.advance()
        if skip:
            bad[i] = skip
    if len(bad) > recipe.max_bad * len(order):
        raise too_many_bad(list(bad.values()), len(order), recipe.max_bad)
    return bad


def _read(store: Store, catalog: Catalog, positions: list[int]) -> NDArray[np.float16]:
    return store.read([catalog.photos[i].digest for i in positions], dtype=np.float16)


def _slices(catalog: Catalog, train: list[int], recipe: Recipe) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places among the training photos to learn from, and those that decide which epoch is kept, groups kept together."""
    everything = np.arange(len(train))
    n_folds = round(1 / recipe.watch) if recipe.watch else 0
    if n_folds < 2:
        return everything, everything[:0]
    keys = catalog.keys()
    folds = fold_numbers([keys[i] for i in train], catalog.strata[train], n_folds=n_folds, seed=recipe.seed)
    return everything[folds != 0], everything[folds == 0]


def _first_head(
    body: Any, feed: Any, catalog: Catalog, train: list[int], recipe: Recipe, device: str, progress: Progress
) -> tuple[Head, str]:
    """The head to begin with: solved on what the layers give before they learn, or random numbers."""
    from rehead.nets.heads import head_from_module, mlp_module
    from rehead.tuning.recipe import hidden_widths
    from rehead.tuning.train import logits_of

    hidden = hidden_widths(recipe.head)
    if recipe.warm_head:
        pooled = logits_of(body.to(device), feed, np.arange(len(train)), device)
        labels, folds = feed.labels[: len(train)], folds_of(catalog, train, recipe)
        if not hidden:
            return first_head(catalog.task, pooled, labels, catalog.n_outputs, folds, recipe)
        fitted = fit_task(catalog.task, pooled, labels, catalog.n_outputs, folds, recipe, device, progress)
        return fitted.head, fitted.note
    width = logits_of(body.to(device), feed, np.arange(1), device).shape[1]
    module = mlp_module(width, hidden, catalog.n_outputs, recipe.activation, seed=recipe.seed)  # type: ignore[arg-type]
    kind: Any = "mlp" if hidden else "linear"
    return head_from_module(module, kind, recipe.activation), f"{kind}: random at first"  # type: ignore[arg-type]


def _thresholds(catalog: Catalog, model: Any, feed: Any, watch: NDArray[np.int64]) -> tuple[float, ...]:
    """Of several labels a photo: chosen on the watched photos of the training side, from which the layers did not learn."""
    from rehead.tuning.train import logits_of

    if catalog.task != "multilabel":
        return ()
    none = np.empty((0, catalog.n_outputs), np.float32)
    return chosen_thresholds(logits_of(model, feed, watch, "cpu") if len(watch) else none, feed.labels[watch])


def _epoch_line(facts: dict[str, Any], n_epochs: int) -> str:
    watched = ""
    if "watch_right" in facts:
        watched = f", watched {wilson(facts['watch_right'], facts['watch_n'])}"
    elif "watch_loss" in facts:
        watched = f", watched {facts['watch_loss']:.3f}"
    return f"Epoch {facts['epoch']} of {n_epochs}: loss {facts['loss']:.3f}{watched}, {facts['images_per_s']:.0f}/s"


def _photo_card(card: Card, recipe: Recipe) -> Card:
    return with_fit(card, recipe.fit) if recipe.fit not in ("default", "auto") else card


def _by_network(network: Any, card: Card, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    from rehead.nets.cut import Pooled

    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (card.preprocess.mean, card.preprocess.std))
    with torch.inference_mode():
        rows = [
            Pooled(network).eval()((torch.from_numpy(part).permute(0, 3, 1, 2).float() - mean) / std).numpy()
            for part in np.array_split(pixels, max(1, len(pixels) // 8))
        ]
    return np.concatenate(rows)
