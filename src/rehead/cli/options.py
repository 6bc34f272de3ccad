"""What several commands share: options, and how a command ends."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any, Optional

import typer

Cache = Annotated[
    Optional[str], typer.Option("--cache", help="Where features are kept, if not ~/.cache/rehead. (env: REHEAD_CACHE)")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
JsonList = Annotated[bool, typer.Option("--json", help="Print one JSON array, an object a row, and nothing else.")]
Layout = Annotated[
    str, typer.Option(help="folders, split, flat, manifest, webdataset or archive; recognised when left out.")
]
Tta = Annotated[
    bool, typer.Option("--tta", help="See each photo and its mirror image: a little surer, twice the time.")
]
Variant = Annotated[
    Optional[str],
    typer.Option(help="Another form of the model that `rehead export` put into the bundle, such as int8."),
]
Task = Annotated[
    Optional[str], typer.Option(help="classification, multilabel or regression; the labels tell it when left out.")
]
TRAINING = "Training by gradient steps"
MaxBad = Annotated[float, typer.Option(help="Share of unreadable photos over which the job stops.")]


def training(help: str) -> Any:
    """An option of training by gradient steps, shown among the others of that kind."""
    return typer.Option(help=help, rich_help_panel=TRAINING)


def finish(progress: Any, json: dict[str, Any] | None) -> None:
    """The last of a job: its progress ends, and with --json its one object is printed."""
    progress.close()
    if json is not None:
        print(json_module.dumps(json))
