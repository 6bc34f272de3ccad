"""One short function a command: types, one call, one way to show. Each imports its job inside, so help is quick."""

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from rehead.cli import terminal
from rehead.cli.arguments import Interrupt, as_seconds, backbone_arguments, check_apart, named, not_empty
from rehead.cli.audits import audit
from rehead.cli.ending import guarded, leave
from rehead.cli.exports import export
from rehead.cli.options import Cache, Json, JsonList, Layout, MaxBad, Tta, Variant, finish
from rehead.cli.service import serve
from rehead.cli.tables import say
from rehead.cli.trust import FOLDS_READ, compare, cross_validated, explain, report
from rehead.cli.tuning import race, tune
from rehead.errors import SourceError, command

app = typer.Typer(
    name="rehead",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Give a pretrained vision network a new head: tune it on a folder of photos, verify it, ship it.\n\n"
    "For example:  rehead tune photos/   and then   rehead predict runs/photos-efficientnet_lite0-1/bundle cat.jpg",
)
cache_app = typer.Typer(
    help="What is kept between jobs: features, exported networks, unpacked archives, what is known of files."
)
runs_app = typer.Typer(help="The runs that were made, with recipe and verdict.")
app.add_typer(runs_app, name="runs", invoke_without_command=True)
app.add_typer(cache_app, name="cache", invoke_without_command=True)


def _print_version(asked: bool) -> None:
    if asked:
        import rehead

        print(rehead.__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del debug, version  # the first is read by `guarded` before commands are parsed


app.command()(tune)
app.command()(race)
app.command()(compare)
app.command()(explain)
app.command()(report)
app.command()(audit)
app.command()(export)
app.command()(serve)


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    photos: Annotated[list[str], typer.Argument(help="Images, folders, or patterns such as 'photos/*.jpg'.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each photo.")] = 3,
    format: Annotated[Optional[str], typer.Option(help="table, csv or jsonl; left out, as --out ends.")] = None,
    out: Annotated[Optional[str], typer.Option(help="Write to this file instead.")] = None,
    variant: Variant = None,
    tta: Tta = False,
) -> None:
    """Name the class of photos with a bundle, or their labels, or a number. Exit code 3 when some could not be read.

    Example: rehead predict runs/photos-efficientnet_lite0-1/bundle cat.jpg holiday/
    """
    from rehead.cli.predictions import form_of, last_words, predict_to

    not_empty(out, "out")
    progress = terminal.progress_beside(out)
    with Interrupt(progress):
        n, bad = predict_to(bundle, photos, top=top, form=form_of(format, out), out=Path(out) if out else None, tta=tta,
                            variant=not_empty(variant, "variant"), progress=progress)  # fmt: skip
    progress.close()
    for words in last_words(n, bad, out):
        say(words, sys.stderr)
    if bad:
        raise typer.Exit(3)


@app.command()
def verify(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    photos: Annotated[Optional[str], typer.Argument(help="Labelled photos, as for `rehead tune`.")] = None,
    folds: Annotated[
        Optional[int], typer.Option(help="Cross-validate the run's head on kept features: the run's photos, or PHOTOS.")
    ] = None,
    layout: Layout = "auto",
    max_bad: MaxBad = 0.2,
    variant: Variant = None,
    tta: Tta = False,
    cache: Annotated[
        Optional[str],
        typer.Option("--cache", help="Where archives are unpacked, and features are kept. (env: REHEAD_CACHE)"),
    ] = None,
    json: Json = False,
) -> None:
    """Judge a bundle on other labelled photos, or with --folds its kind of head by k-fold on those it was made from.

    Example: rehead verify runs/photos-efficientnet_lite0-1/bundle new_photos/
    """
    if folds is not None:
        check_apart(context, "--folds", ("variant", "tta", "max_bad"), FOLDS_READ)
        cross_validated(bundle, photos, folds, layout, cache, json)
        return
    from rehead.verify_bundle import verify as run_verify

    if photos is None:
        raise SourceError(
            what="No photos are named.",
            fix=f"Name labelled photos: {command('verify', bundle, 'photos/')}, or cross-validate on the run's own: --folds 5",
        )
    progress = terminal.progress_for(json=json)
    with Interrupt(progress):
        verified = run_verify(bundle, named(photos), layout=layout, max_bad=max_bad, tta=tta, cache=cache,
                              variant=not_empty(variant, "variant"), progress=progress)  # fmt: skip
    finish(progress, verified.to_dict() if json else None)
    if not json:
        terminal.show_verdict(verified.verdict, photos)
        terminal.show_skipped(verified.skipped)


@app.command()
def backbones(
    pattern: Annotated[Optional[str], typer.Argument(help="A part of a name, or a pattern such as 'resnet*'.")] = None,
    cache: Cache = None,
    json: JsonList = False,
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
    json: JsonList = False,
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
    out: Annotated[str, typer.Option(help="Where the photos and the run are written.")] = "rehead-demo",
    cache: Cache = None,
) -> None:
    """Run the main job on 1,797 handwritten digits that come with scikit-learn. Nothing is downloaded.

    Example: rehead demo
    """
    from rehead.demo import write_digits
    from rehead.run import tune as run_tune

    not_empty(out, "out")
    progress = terminal.progress_for(json=False)
    with Interrupt(progress) as stop:
        photos = write_digits(Path(out, "digits"), progress)
        tuned = run_tune(photos, out=Path(out, "run"), force=True, cache=cache, progress=progress, stop=stop)
    finish(progress, None)
    terminal.show_verdict(tuned.verdict)
    terminal.show_tuned(tuned)
    if tuned.defect is not None:
        raise tuned.defect


@runs_app.callback()
def runs_list(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the runs are.")] = Path("runs"),
    json: JsonList = False,
) -> None:
    """List the runs in a folder, the latest first. `rehead runs show RUN` shows one.

    Example: rehead runs
    """
    if context.invoked_subcommand is not None:
        context.obj = folder, json
        return
    from rehead.runs.listing import list_runs

    found = list_runs(folder)
    if json:
        print(json_module.dumps([run.to_dict() for run in found]))
        return
    terminal.show_runs(found, str(folder))


@runs_app.command()
def show(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="The folder of a run, or its name in the folder of runs.")],
    json: Json = False,
) -> None:
    """Show a run: its recipe, where it differs from the defaults, and its verdict.

    Example: rehead runs show runs/photos-efficientnet_lite0-1
    """
    from rehead.runs.listing import read_run

    folder, of_runs = context.obj  # what stood before `show`
    found = read_run(folder / run if os.path.isdir(folder / run) else run)
    if json or of_runs:
        print(json_module.dumps({**found.to_dict(), "verdict": found.verdict.to_dict() if found.verdict else None}))
        return
    terminal.show_run(found)


@cache_app.callback()
def cache_size(context: typer.Context, cache: Cache = None, json: Json = False) -> None:
    """What is kept between jobs, by backbone. `rehead cache clear` frees it.

    Example: rehead cache
    """
    if context.invoked_subcommand is not None:
        context.obj = cache, json
        return
    from rehead.features.cache import cache_folder, list_stores, other_bytes

    folder = cache_folder(cache)
    stores, other = list_stores(folder), other_bytes(folder)
    if json:
        total = sum(s.size_bytes for s in stores) + other
        about = {"folder": str(folder), "total_bytes": total, "other_bytes": other}
        print(json_module.dumps({**about, "stores": [s.__dict__ for s in stores]}))
        return
    terminal.show_cache(folder, stores, other)


@cache_app.command()
def clear(
    context: typer.Context,
    backbone: Annotated[Optional[str], typer.Option(help="Only of this backbone; patterns are allowed.")] = None,
    older_than: Annotated[Optional[str], typer.Option(help="Only what was not used for so long: 30d, 12h.")] = None,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Free what is kept. What a running job uses is left alone.

    Example: rehead cache clear --older-than 30d
    """
    from rehead.features.cache import cache_folder
    from rehead.features.clearing import clear as clear_cache

    of_cache, of_json = context.obj  # what stood before `clear`
    folder = cache_folder(of_cache if cache is None else cache)
    cleared = clear_cache(folder, backbone=backbone, older_than_s=as_seconds(older_than, "older-than"))
    if json or of_json:
        print(json_module.dumps(cleared.__dict__))
        return
    terminal.show_cleared(cleared)


def main() -> None:
    """The program: exit code 0, 1 for our mistakes, 2 for the user's, 3 for a photo that could not be predicted."""
    leave(guarded(app))
