"""The commands that make a model: every setting of a recipe as an option, one call, one way to show."""

from typing import Annotated, Optional

import typer

from rehead.cli import terminal
from rehead.cli.arguments import Interrupt, as_rate, as_seconds, backbone_arguments, named, not_empty
from rehead.cli.options import TRAINING, Cache, Json, Layout, Task, finish, training


def tune(
    photos: Annotated[
        str | None, typer.Argument(help="Folder, CSV or Parquet manifest, .zip or .tar of labelled photos.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="A name that `rehead backbones` lists, a bundle, or auto: race them. (efficientnet_lite0)"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A preset: quick (head), balanced (last layers too), thorough (all), or auto: which of them pays."
        ),
    ] = None,
    task: Task = None,
    head: Annotated[str | None, typer.Option(help="linear, mlp:1000,256, prototype or auto. (linear)")] = None,
    train: Annotated[
        str | None, typer.Option(help="What learns: head, last:2, last:30%, layer4,head, all or lora:8. (head)")
    ] = None,
    first: Annotated[
        str | None, training("With --train all: what `balanced` trains learns before all layers do.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="A local .safetensors, .pth or .pt file.")] = None,
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
    tie_copies: Annotated[
        bool | None, typer.Option(help="Keep near copies on one side, where the photos bring no split. (yes)")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many photos.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Extract for at most so long: 90s, 2m, 1h. With --recipe auto: the whole job. (10m)"),
    ] = None,
    class_weight: Annotated[str | None, typer.Option(help="balanced: rare classes count as much.")] = None,
    folds: Annotated[int | None, typer.Option(help="Folds of the cross-validation on the training side. (5)")] = None,
    precision: Annotated[
        float | None, typer.Option(help="Of classes: share right that is wanted of answers that are not unsure. (0.95)")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="Between an MLP's layers: relu or none. (relu)")] = None,
    epochs: Annotated[int | None, training("(40 for an MLP, 6 for layers)")] = None,
    batch_size: Annotated[int | None, training("(64 for an MLP, 32 for layers)")] = None,
    lr: Annotated[
        str | None,
        training("The highest learning rate; auto finds it. (0.001; all layers: 0.0003; an MLP: 0.25 / features)"),
    ] = None,
    optimizer: Annotated[str | None, training("adam, adamw or sgd. (adamw)")] = None,
    schedule: Annotated[str | None, training("one-cycle, cosine or constant. (one-cycle)")] = None,
    weight_decay: Annotated[float | None, training("Not of norms and biases. (0.05; of adam 0, of sgd 0.0001)")] = None,
    layer_decay: Annotated[
        float | None,
        training("Each layer learns at this share of the rate of the one above. (1)"),
    ] = None,
    label_smoothing: Annotated[float | None, training("Of classes. (0.1)")] = None,
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
        training("Share of the training photos that chooses the epoch: one in 2, 3, 4, ... (0.1)"),
    ] = None,
    cache_limit: Annotated[float | None, training("GB that kept activations may take. (20)")] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, onnxruntime, openvino, openvino-bf16 or torch. (auto)")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps. (auto)")] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: the frozen network in 8 bits, for large folders and small bundles. (none)")
    ] = None,
    max_bad: Annotated[
        float | None, typer.Option(help="Share of unreadable photos over which the job stops. (0.2)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every dice that is thrown. (0)")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder; else runs/<photos>-<backbone>-<n>.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the run in this folder, which was interrupted.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Train by compiled code: worth it on CUDA.", rich_help_panel=TRAINING)
    ] = False,
    track: Annotated[list[str] | None, training("Told of each epoch: tensorboard, mlflow. Repeatable.")] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Learn the photos of this run too: new classes beside its own. A bundle without its run: the backbone.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is in --out.")] = False,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report", help="Audit the photos and write report.html when the run is finished. (report)"
        ),
    ] = None,
    with_neighbours: Annotated[
        bool | None,
        typer.Option(
            "--with-neighbours/--no-neighbours", help="Show in the bundle small pictures of photos it learned from."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Do the job on a Ray cluster: local, auto, ray://HOST:10001, or HOST:6379 on one of its nodes."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="A folder, or s3://bucket/features, of features that machines share: read before, added to after."
        ),
    ] = None,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Tune a backbone on labelled photos and verify it on photos it never saw.

    Example: rehead tune photos/ --recipe balanced
    """
    from rehead.run import tune as run_tune

    settings = {
        "task": task, "backbone": not_empty(backbone, "backbone"), "head": head, "train": train, "first": first,
        "weights": not_empty(weights, "weights"),
        "cut": cut, "fit": fit, "backbone_args": backbone_arguments(backbone_arg) if backbone_arg else None,
        "valid_fraction": valid_fraction, "limit": limit, "tie_copies": tie_copies, "budget_s": as_seconds(budget, "budget"),
        "class_weight": class_weight, "folds": folds, "precision": precision, "activation": activation, "epochs": epochs,
        "batch_size": batch_size, "lr": as_rate(lr), "optimizer": optimizer, "schedule": schedule, "weight_decay": weight_decay,
        "layer_decay": layer_decay, "label_smoothing": label_smoothing, "clip": clip, "accumulate": accumulate,
        "ema": ema, "patience": patience, "norm": norm, "augment": augment, "views": views, "mixup": mixup,
        "start_scale": start_scale,
        "cutmix": cutmix, "erase": erase, "sampling": sampling, "warm_head": warm_head, "watch": watch,
        "cache_limit_gb": cache_limit, "engine": engine, "device": device, "quantize": quantize,
        "max_bad": max_bad, "seed": seed, "compile": compile or None,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    progress = terminal.progress_for(json=json)
    with Interrupt(progress) as stop:
        tuned = run_tune(named(photos), out=not_empty(out, "out"), force=force, layout=layout, valid=valid, test=test,
                         cache=cache, progress=progress, stop=stop, recipe=recipe, resume=not_empty(resume, "resume"),
                         track=track or (), from_run=not_empty(from_run, "from"), report=report,
                         with_neighbours=with_neighbours, ray=ray, features=features, **given)  # fmt: skip
    finish(progress, tuned.to_dict() if json else None)
    if not json:
        terminal.show_verdict(tuned.verdict, photos)
        terminal.show_tuned(tuned)
    if tuned.defect is not None:
        raise tuned.defect


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
    engine: Annotated[str, typer.Option(help="auto, onnxruntime, openvino, openvino-bf16 or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of every dice that is thrown.")] = 0,
    task: Annotated[
        str, typer.Option(help="classification, where labels are numbers and yet names of classes.")
    ] = "auto",
    out: Annotated[Optional[str], typer.Option(help="The result's folder; else runs/<photos>-race-<n>.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the race that is in --out.")] = False,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Compare backbones on some of the photos, with a head solved for each, and recommend one.

    Example: rehead race photos/ --backbones efficientnet_lite0,resnet18=weights.pth --budget 5m
    """
    from rehead.cli.races import arguments_by_name, show_race
    from rehead.search.race import race as run_race

    arguments = arguments_by_name(backbone_arg or [])
    progress = terminal.progress_for(json=json)
    with Interrupt(progress) as stop:
        raced = run_race(named(photos), backbones=backbones.split(",") if backbones else None,
                         arguments=arguments, out=not_empty(out, "out"), force=force, layout=layout,
                         valid=valid, test=test, cache=cache, progress=progress, stop=stop, limit=limit,
                         budget_s=as_seconds(budget, "budget"), engine=engine, device=device, seed=seed, task=task)  # fmt: skip
    finish(progress, raced.to_dict() if json else None)
    if not json:
        options = {"layout": layout, "valid": valid, "test": test, "task": task, "cache": cache,
                   "seed": str(seed) if seed else None, "engine": engine, "device": device}  # fmt: skip
        show_race(raced, photos, arguments, options)
