"""The command that looks for what is wrong with photos, writes a plan, and follows it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rehead.cli.arguments import Interrupt, check_apart, named, not_empty
from rehead.cli.findings import show_applied, show_audit, show_plan
from rehead.cli.options import Cache, Json, Layout, Task, finish
from rehead.cli.terminal import progress_for
from rehead.durable import write_asked
from rehead.errors import RecipeError

READ = ("layout", "valid", "test", "task", "cache")  # what decides which photos they are
LOOKED = ("backbone", "weights", "limit", "seed")  # and how they are looked at


def audit(
    context: typer.Context,
    photos: Annotated[str, typer.Argument(help="Labelled photos, as for `rehead tune`.")],
    backbone: Annotated[
        Optional[str], typer.Option(help="Whose features tell what is alike. (efficientnet_lite0)")
    ] = None,
    weights: Annotated[Optional[str], typer.Option(help="A local .safetensors, .pth or .pt file.")] = None,
    layout: Layout = "auto",
    valid: Annotated[Optional[str], typer.Option(help="A folder of photos to hold out.")] = None,
    test: Annotated[Optional[str], typer.Option(help="A folder of photos for the verdict.")] = None,
    task: Task = None,
    limit: Annotated[Optional[int], typer.Option(help="Look at no more than so many photos.")] = None,
    fix: Annotated[
        Optional[Path], typer.Option(help="Write what to remove, relabel or keep to this .csv file, to be edited.")
    ] = None,
    apply: Annotated[
        Optional[Path], typer.Option(help="Write a manifest of the photos as this plan has them; no photo is changed.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="With --apply: the manifest. (<photos>-audited.csv)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a plan or manifest that is there.")] = False,
    seed: Annotated[int, typer.Option(help="Of every dice that is thrown.")] = 0,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Look for what is wrong with photos: copies, leaks, wrong labels, odd pictures, shortcuts.

    Example: rehead audit photos/ --fix plan.csv   and, when it is edited,   rehead audit photos/ --apply plan.csv
    """
    _check_options(fix, apply, out)
    progress = progress_for(json=json)
    if apply is not None:
        check_apart(context, "--apply", LOOKED, "A plan is followed as it is written.")
        from rehead.auditing.apply import apply_plan

        with Interrupt(progress):
            applied = apply_plan(named(photos), apply, out, layout=layout, valid=valid, test=test,
                                 task=task or "auto", cache=cache, force=force, progress=progress)  # fmt: skip
        finish(progress, applied.to_dict() if json else None)
        if not json:
            show_applied(applied, [*_typed(context, ("cache",))])
        return
    from rehead.auditing.apply import check_free
    from rehead.auditing.job import audit as run_audit
    from rehead.auditing.plan import as_csv, plan_of

    given = {"backbone": not_empty(backbone, "backbone"), "weights": not_empty(weights, "weights"),
             "limit": limit, "task": task}  # fmt: skip
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    target = check_free(fix, "fix", force) if fix is not None else None
    with Interrupt(progress) as stop:
        found = run_audit(named(photos), layout=layout, valid=valid, test=test, cache=cache, progress=progress,
                          stop=stop, seed=seed, **settings)  # fmt: skip
    plan = plan_of(found)
    if target is not None:
        write_asked(target, as_csv(plan))
    finish(progress, found.to_dict() if json else None)
    if not json:
        show_audit(found, photos)
        again = _typed(context, READ if target is not None else (*READ, *LOOKED))
        show_plan(plan, target, ["rehead", "audit", photos, *again])


def _typed(context: typer.Context, names: Sequence[str]) -> Iterator[str]:
    """Those of these options that were typed, as they were."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            yield from (f"--{name}", str(context.params[name]))


def _check_options(fix: Path | None, apply: Path | None, out: Path | None) -> None:
    if fix is not None and apply is not None:
        raise RecipeError(
            what="--fix writes a plan and --apply follows one.",
            fix="First --fix plan.csv; edit it; then --apply plan.csv",
        )
    if out is not None and apply is None:
        raise RecipeError(what="--out names the manifest of --apply.", fix="Name the plan with --fix plan.csv.")
