"""One short function a command: types, one call, one way to show. Each imports its job inside, so help is quick."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rehead.cli import terminal
from rehead.cli.arguments import Interrupt, as_rate, as_seconds, backbone_arguments, guarded, named, not_empty

app = typer.Typer(
    name="rehead",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Give a pretrained vision network a new head: tune it on a folder of photos, verify it, ship it.\n\n"
    "For example:  rehead tune photos/   and then   rehead predict runs/photos-efficientnet_lite0-1/bundle cat.jpg",
)
cache_app = typer.Typer(help="What is kept between jobs: features, exported networks, unpacked archives.")
runs_app = typer.Typer(help="The runs that were made, with recipe and verdict.")
app.add_typer(runs_app, name="runs", invoke_without_command=True)
app.add_typer(cache_app, name="cache", invoke_without_command=True)

Cache = Annotated[Optional[str], typer.Option("--cache", help="Where features are kept. (env: REHEAD_CACHE)")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Layout = Annotated[str, typer.Option(help="folders, split, flat, manifest or archive; recognised when left out.")]
Tta = Annotated[
    bool, typer.Option("--tta", help="See each photo and its mirror image: a little surer, twice the time.")
]
TRAINING = "Training by gradient steps"
MaxBad = Annotated[float, typer.Option(help="Share of unreadable photos over which the job stops.")]


def training(help: str) -> Any:
    """An option of training by gradient steps, shown among the others of that kind."""
    return typer.Option(help=help, rich_help_panel=TRAINING)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        import rehead

        print(rehead.__version__)
        raise typer.Exit
    del debug  # read by `guarded` before commands are parsed


@app.command()
def tune(
    photos: Annotated[
        str | None, typer.Argument(help="Folder, CSV or Parquet manifest, .zip or .tar of labelled photos.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A name that `rehead backbones` lists, or auto: race them. (efficientnet_lite0)")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A preset: quick (head), balanced (last layers too), thorough (all), or auto: which of them pays."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification, multilabel or regression; the labels tell it when left out.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="linear, mlp:1000,256, prototype or auto. (linear)")] = None,
    train: Annotated[
        str | None, typer.Option(help="What learns: head, last:2, last:30%, layer4,head, all or lora:8. (head)")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors, .pth or .pt file.")] = None,
    backbone_arg: Annotated[
        list[str] | None, typer.Option(help="For timm or the preprocessing: pad_type=same, mean=0.5, ... Repeatable.")
    ] = None,
    cut: Annotated[
        str | None, typer.Option(help="The last frozen layer, whose output is kept; none to keep nothing.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="Picture to square: default, crop, pad, squash or auto.")] = None,
    valid: Annotated[str | None, typer.Option(help="A folder of photos to hold out.")] = None,
    test: Annotated[str | None, typer.Option(help="A folder of photos for the verdict.")] = None,
    layout: Layout = "auto",
    valid_fraction: Annotated[
        float | None, typer.Option(help="Share held out where the photos bring no split. (0.2)")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many photos.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Extract for at most so long: 90s, 2m, 1h. With --recipe auto: the whole job. (10m)"),
    ] = None,
    class_weight: Annotated[str | None, typer.Option(help="balanced: rare classes count as much.")] = None,
    folds: Annotated[int | None, typer.Option(help="Folds of the cross-validation on the training side. (5)")] = None,
    activation: Annotated[str | None, typer.Option(help="Between an MLP's layers: relu or none. (relu)")] = None,
    epochs: Annotated[int | None, training("(40 for an MLP, 6 for layers)")] = None,
    batch_size: Annotated[int | None, training("(64 for an MLP, 32 for layers)")] = None,
    lr: Annotated[str | None, training("The highest learning rate; auto finds it. (0.001)")] = None,
    optimizer: Annotated[str | None, training("adam, adamw or sgd. (adamw)")] = None,
    schedule: Annotated[str | None, training("one-cycle, cosine or constant. (one-cycle)")] = None,
    weight_decay: Annotated[float | None, training("Not of norms and biases. (0.05)")] = None,
    layer_decay: Annotated[
        float | None,
        training("Each layer learns at this share of the rate of the one above. (1)"),
    ] = None,
    label_smoothing: Annotated[float | None, training("(0.1)")] = None,
    clip: Annotated[float | None, training("The largest norm of a step's gradient.")] = None,
    accumulate: Annotated[int | None, training("Batches a step. (1)")] = None,
    ema: Annotated[float | None, training("Keep a moving average of the weights: 0.998.")] = None,
    patience: Annotated[int | None, training("Epochs without a gain until it stops.")] = None,
    norm: Annotated[str | None, training("Statistics of norms: frozen or adapt. (frozen)")] = None,
    augment: Annotated[str | None, training("none, flip, crop, trivial or rand. (flip)")] = None,
    views: Annotated[int | None, training("Views of each photo that are kept. (2)")] = None,
    start_scale: Annotated[
        float | None, training("Begin with photos of this share of the network's side: 0.5. (1)")
    ] = None,
    mixup: Annotated[float | None, training("Mix photos: 0.2. (0)")] = None,
    cutmix: Annotated[float | None, training("Paste a part of another photo: 1. (0)")] = None,
    erase: Annotated[float | None, training("Chance that a box of a photo is erased: 0.25. (0)")] = None,
    sampling: Annotated[str | None, training("balanced: each class is seen as often. (plain)")] = None,
    warm_head: Annotated[
        bool | None,
        training("Solve the head before layers move."),
    ] = None,
    watch: Annotated[
        float | None,
        training("Share of the training photos that chooses the epoch. (0.1)"),
    ] = None,
    cache_limit: Annotated[float | None, training("GB that kept activations may take. (20)")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnxruntime, openvino or torch. (auto)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps. (auto)")] = None,
    max_bad: Annotated[
        float | None, typer.Option(help="Share of unreadable photos over which the job stops. (0.2)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every dice that is thrown. (0)")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; else runs/<photos>-<backbone>-<n>.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, which was interrupted.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Train by compiled code: worth it on CUDA.", rich_help_panel=TRAINING)
    ] = False,
    track: Annotated[list[str] | None, training("Told of each epoch: tensorboard, mlflow. Repeatable.")] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from", help="Learn the photos of this run or bundle too: new classes beside its own."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is in --out.")] = False,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Tune a backbone on labelled photos and verify it on photos it never saw.

    Example: rehead tune photos/ --recipe balanced
    """
    from rehead.run import tune as run_tune

    settings = {
        "task": task, "backbone": not_empty(backbone, "backbone"), "head": head, "train": train,
        "weights": str(weights) if weights else None,
        "cut": cut, "fit": fit, "backbone_args": backbone_arguments(backbone_arg) if backbone_arg else None,
        "valid_fraction": valid_fraction, "limit": limit, "budget_s": as_seconds(budget, "budget"),
        "class_weight": class_weight, "folds": folds, "activation": activation, "epochs": epochs,
        "batch_size": batch_size, "lr": as_rate(lr), "optimizer": optimizer, "schedule": schedule, "weight_decay": weight_decay,
        "layer_decay": layer_decay, "label_smoothing": label_smoothing, "clip": clip, "accumulate": accumulate,
        "ema": ema, "patience": patience, "norm": norm, "augment": augment, "views": views, "mixup": mixup,
        "start_scale": start_scale,
        "cutmix": cutmix, "erase": erase, "sampling": sampling, "warm_head": warm_head, "watch": watch,
        "cache_limit_gb": cache_limit, "engine": engine, "device": device, "max_bad": max_bad, "seed": seed,
        "compile": compile or None,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    progress = terminal.progress_for(json=json)
    with Interrupt(progress) as stop:
        tuned = run_tune(named(photos), out=out, force=force, layout=layout, valid=valid, test=test, cache=cache,
                         progress=progress, stop=stop, recipe=recipe, resume=resume,
                         track=track or (), from_run=from_run, **given)  # fmt: skip
    _finish(progress, tuned.to_dict() if json else None)
    if not json:
        terminal.show_verdict(tuned.verdict, photos)
        terminal.show_tuned(tuned.head_note, tuned.images, tuned.seconds, str(tuned.run), str(tuned.bundle))


@app.command()
def race(
    photos: Annotated[str, typer.Argument(help="Labelled photos, as for `rehead tune`.")],
    backbones: Annotated[
        Optional[str], typer.Option(help="Names, or NAME=FILE for weights of your own: A,B,C=c.pth. (those here)")
    ] = None,
    backbone_arg: Annotated[
        Optional[list[str]], typer.Option(help="For one of them: NAME:pad_type=same, NAME:mean=0.5, ... Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Use at most so many photos.")] = 500,
    budget: Annotated[Optional[str], typer.Option(help="Take at most about so long in all: 90s, 5m, 1h.")] = None,
    valid: Annotated[Optional[str], typer.Option(help="A folder of photos to hold out.")] = None,
    test: Annotated[Optional[str], typer.Option(help="A folder of photos to hold out, for a verdict.")] = None,
    layout: Layout = "auto",
    engine: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of every dice that is thrown.")] = 0,
    out: Annotated[Optional[Path], typer.Option(help="The result's folder; else runs/<photos>-race-<n>.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the race that is in --out.")] = False,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Compare backbones on some of the photos, with a head solved for each, and recommend one.

    Example: rehead race photos/ --backbones efficientnet_lite0,resnet18=weights.pth --budget 5m
    """
    from rehead.cli.races import arguments_by_name, show_race
    from rehead.racing import race as run_race

    progress = terminal.progress_for(json=json)
    with Interrupt(progress) as stop:
        raced = run_race(named(photos), backbones=backbones.split(",") if backbones else None,
                         arguments=arguments_by_name(backbone_arg or []), out=out, force=force, layout=layout,
                         valid=valid, test=test, cache=cache, progress=progress, stop=stop, limit=limit,
                         budget_s=as_seconds(budget, "budget"), engine=engine, device=device, seed=seed)  # fmt: skip
    _finish(progress, raced.to_dict() if json else None)
    if not json:
        show_race(raced, photos)


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    photos: Annotated[list[str], typer.Argument(help="Images, folders, or patterns such as 'photos/*.jpg'.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each photo.")] = 3,
    format: Annotated[str, typer.Option(help="table, csv or jsonl.")] = "table",
    out: Annotated[Optional[str], typer.Option(help="Write to this file instead.")] = None,
    tta: Tta = False,
) -> None:
    """Name the class of photos with a bundle, or their labels, or a number. Exit code 3 when some could not be read.

    Example: rehead predict runs/photos-efficientnet_lite0-1/bundle cat.jpg holiday/
    """
    from rehead.cli.predictions import predict_to

    not_empty(out, "out")
    bad = predict_to(bundle, photos, top=top, form=format, out=Path(out) if out else None, tta=tta)
    if bad:
        raise typer.Exit(3)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    photos: Annotated[str, typer.Argument(help="Labelled photos, as for `rehead tune`.")],
    layout: Layout = "auto",
    max_bad: MaxBad = 0.2,
    tta: Tta = False,
    cache: Annotated[
        Optional[str], typer.Option("--cache", help="Where archives are unpacked. (env: REHEAD_CACHE)")
    ] = None,
    json: Json = False,
) -> None:
    """Judge a bundle on other labelled photos.

    Example: rehead verify runs/photos-efficientnet_lite0-1/bundle new_photos/
    """
    from rehead.verify_bundle import verify as run_verify

    progress = terminal.progress_for(json=json)
    with Interrupt(progress):
        verified = run_verify(bundle, named(photos), layout=layout, max_bad=max_bad, tta=tta, cache=cache,
                              progress=progress)  # fmt: skip
    _finish(progress, verified.to_dict() if json else None)
    if not json:
        terminal.show_verdict(verified.verdict, photos)
        terminal.show_skipped(verified.skipped)


@app.command()
def backbones(
    pattern: Annotated[Optional[str], typer.Argument(help="A part of a name, or a pattern such as 'resnet*'.")] = None,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """List backbones: those whose weights are here, or those that match PATTERN.

    Example: rehead backbones 'resnet*'
    """
    from rehead.features.cache import cache_folder

    progress = terminal.progress_for(json=json)
    with Interrupt(progress):
        progress.phase("Loading the list of backbones")
        from rehead.nets.listing import list_backbones

        rows, others = list_backbones(pattern, cache_folder(cache), progress)
    progress.close()
    if json:
        print(json_module.dumps([row.__dict__ for row in rows]))
        return
    terminal.show_backbones(rows, others, pattern)


@app.command()
def layers(
    backbone: Annotated[str, typer.Argument(help="A name that `rehead backbones` lists.")],
    depth: Annotated[int, typer.Option(min=1, max=4, help="2 and more list finer layers, where a cut is allowed.")] = 1,
    weights: Annotated[Optional[Path], typer.Option(help="A local file; without one none are loaded.")] = None,
    backbone_arg: Annotated[Optional[list[str]], typer.Option(help="For timm: pad_type=same, ... Repeatable.")] = None,
    json: Json = False,
) -> None:
    """List a backbone's layers, in order of data flow, and what a cut behind each would cost.

    Example: rehead layers resnet50 --depth 2
    """
    from rehead.nets.backbone import load_backbone

    net = load_backbone(backbone, weights=weights, arguments=backbone_arguments(backbone_arg or []),
                        pretrained=weights is not None)  # fmt: skip
    rows = net.chain.at_depth(depth)
    if json:
        print(json_module.dumps([{**row.__dict__, "size_bytes": row.size_bytes} for row in rows]))
        return
    terminal.show_layers(rows)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the photos and the run are written.")] = Path("rehead-demo"),
    cache: Cache = None,
) -> None:
    """Run the main job on 1,797 handwritten digits that come with scikit-learn. Nothing is downloaded.

    Example: rehead demo
    """
    from rehead.demo import write_digits
    from rehead.run import tune as run_tune

    progress = terminal.progress_for(json=False)
    with Interrupt(progress) as stop:
        photos = write_digits(out / "digits", progress)
        tuned = run_tune(photos, out=out / "run", force=True, cache=cache, progress=progress, stop=stop)
    _finish(progress, None)
    terminal.show_verdict(tuned.verdict)
    terminal.show_tuned(tuned.head_note, tuned.images, tuned.seconds, str(tuned.run), str(tuned.bundle))


@runs_app.callback()
def runs_list(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the runs are.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs in a folder, the latest first. `rehead runs show RUN` shows one.

    Example: rehead runs
    """
    if context.invoked_subcommand is not None:
        return
    from rehead.runs import list_runs

    found = list_runs(folder)
    if json:
        print(json_module.dumps([run.to_dict() for run in found]))
        return
    terminal.show_runs(found, str(folder))


@runs_app.command()
def show(run: Annotated[Path, typer.Argument(help="The folder of a run.")], json: Json = False) -> None:
    """Show a run: its recipe, where it differs from the defaults, and its verdict.

    Example: rehead runs show runs/photos-efficientnet_lite0-1
    """
    from rehead.runs import read_run

    found = read_run(run)
    if json:
        print(json_module.dumps({**found.to_dict(), "verdict": found.verdict.to_dict() if found.verdict else None}))
        return
    terminal.show_run(found)


@cache_app.callback()
def cache_size(context: typer.Context, cache: Cache = None, json: Json = False) -> None:
    """What is kept between jobs, by backbone. `rehead cache clear` frees it.

    Example: rehead cache
    """
    if context.invoked_subcommand is not None:
        return
    from rehead.features.cache import cache_folder, list_stores, other_bytes

    folder = cache_folder(cache)
    stores = list_stores(folder)
    if json:
        print(json_module.dumps({"folder": str(folder), "stores": [s.__dict__ for s in stores]}))
        return
    terminal.show_cache(folder, stores, other_bytes(folder))


@cache_app.command()
def clear(
    backbone: Annotated[Optional[str], typer.Option(help="Only of this backbone; patterns are allowed.")] = None,
    older_than: Annotated[Optional[str], typer.Option(help="Only what was not used for so long: 30d, 12h.")] = None,
    cache: Cache = None,
) -> None:
    """Free what is kept. What a running job uses is left alone.

    Example: rehead cache clear --older-than 30d
    """
    from rehead.features.cache import cache_folder
    from rehead.features.cache import clear as clear_cache

    cleared = clear_cache(cache_folder(cache), backbone=backbone, older_than_s=as_seconds(older_than, "older-than"))
    terminal.show_cleared(cleared)


def main() -> None:
    """The program: exit code 0, 1 for our mistakes, 2 for the user's, 3 for a photo that could not be predicted."""
    sys.exit(guarded(app))


def _finish(progress: Any, json: dict[str, Any] | None) -> None:
    progress.close()
    if json is not None:
        print(json_module.dumps(json))
