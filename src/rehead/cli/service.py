"""`rehead serve`: bundles behind HTTP, until it is told to end."""

import contextlib
import importlib.util
import ipaddress
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rehead.cli.arguments import not_empty
from rehead.cli.tables import say
from rehead.errors import MissingExtra, RecipeError, RunError

if TYPE_CHECKING:
    from rehead.serving.journal import Journal
    from rehead.serving.models import Loaded

MIN_TOKEN = 16  # letters: shorter ones can be tried out
DEFAULT_PORTS = {"http": 80, "https": 443}  # browsers leave them out
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")  # as browsers write one

LIBRARIES = ("fastapi", "fastapi_offline", "prometheus_client", "python_multipart", "uvicorn")  # of the extra


def serve(
    bundles: Annotated[list[str], typer.Argument(help="Folders `bundle` of runs, or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="Address to listen at; the default is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = 8000,
    token_file: Annotated[
        Optional[Path], typer.Option(help="A file with the token that every request must bring, but for health.")
    ] = None,
    cors: Annotated[
        Optional[list[str]],
        typer.Option(help="Origin of another page that may use it, or of the proxy before it. Repeatable."),
    ] = None,
    feedback: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Keep corrected photos in this folder, for `rehead tune`.")
    ] = None,
    variant: Annotated[
        Optional[str],
        typer.Option(help="The form of the model that answers, which `rehead export` made: int8, openvino, ..."),
    ] = None,
    threads: Annotated[Optional[int], typer.Option(min=1, help="Photos under way at once; one a core.")] = None,
) -> None:
    """Serve bundles over HTTP, with a page for people at `/`. Ends in order on Ctrl-C or SIGTERM.

    Example: rehead serve runs/photos-efficientnet_lite0-1/bundle
    """
    _check_installed()
    from rehead.serving.app import make_app
    from rehead.serving.gate import is_loopback, own_names
    from rehead.serving.models import load_named, named_bundles
    from rehead.serving.server import address_of, bound
    from rehead.serving.server import serve as run

    variant, place = not_empty(variant, "variant"), not_empty(feedback, "feedback")
    token = _token(token_file)
    folders = named_bundles(bundles)
    origins = [_origin(text) for text in cors or []]
    with bound(host, port) as listening:
        models = {name: load_named(name, folder, variant) for name, folder in folders.items()}
        app = make_app(
            models, token=token, cors=origins, hosts=own_names(host, origins), workers=threads,
            feedback=Path(place) if place else None,
        )  # fmt: skip
        is_open = token is None and not is_loopback(host)
        tuned = {name: _tuned_by(models[name], one.folder) for name, one in app.state.feedback.items()}
        _greet(address_of(listening), models, tuned, app.state.service.journal, is_open=is_open)
        run(app, listening)
        app.state.service.journal.say("ended")


def _greet(
    address: str, models: Mapping[str, "Loaded"], tuned: Mapping[str, str], journal: "Journal", *, is_open: bool
) -> None:
    """Says what is served: words for a person at a terminal, else a line of the log. tuned: by which command a model learns
    from its corrections. is_open: to whoever reaches it."""
    warning = f"Anyone who reaches {address} can use this service: it has no token. Pass --token-file."
    if not sys.stderr.isatty():
        journal.say("serving", address=address, models=list(models), **({"corrections": dict(tuned)} if tuned else {}))
        if is_open:
            journal.say("warning", message=warning)
        return
    say(f"Serving   {address}   (Ctrl-C ends it)", sys.stderr)
    for loaded in models.values():
        said = loaded.about["headline"]
        say(f"Model     {loaded.name}: {loaded.model.task}{f', {said}' if said else ''}", sys.stderr)
    for name, command in tuned.items():
        say(f"Corrected {name}: {command}", sys.stderr)
    say(f"To ask it {address}/docs", sys.stderr)
    if is_open:
        say(f"! {warning}", sys.stderr)


def _tuned_by(loaded: "Loaded", folder: Path) -> str:
    """The command that learns from the corrections of a model, which lie in a folder of its own."""
    return f"rehead tune {shlex.quote(str(folder))}{' --task regression' if loaded.model.task == 'regression' else ''}"


def _check_installed() -> None:
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, "serve", "Serving")


def _token(path: Path | None) -> str | None:
    """What stands in the file, without blanks around it. Raises RunError for what is no token."""
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise RunError(
            what=f"The token cannot be read from {path}.",
            why=f"{getattr(error, 'strerror', None) or error}.",
            fix="Write one there: openssl rand -hex 32 > token",
        ) from error
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise RunError(
            what=f"{path} is empty." if not token else f"What stands in {path} is no token.",
            why=f"A token is one word of at least {MIN_TOKEN} letters, digits and signs.",
            fix=f"Write one there: openssl rand -hex 32 > {path}",
        )
    return token


def _origin(text: str) -> str:
    """'https://example.org' as a browser says it. Raises RecipeError for what is no origin; `*` would be anybody."""
    from urllib.parse import urlsplit

    with contextlib.suppress(ValueError):  # brackets that do not close, a port that is none
        parts = urlsplit(text)
        host, port = _host_of(parts.hostname or ""), parts.port
        is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
        if parts.scheme in DEFAULT_PORTS and HOST.fullmatch(host) and is_bare and port != 0:
            return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, DEFAULT_PORTS[parts.scheme]) else "")
    raise RecipeError(
        what=f"--cors {text!r} is no origin.",
        why="It is http:// or https://, one host as a browser writes it, and its port where that is another than usual.",
        fix="For example: --cors https://photos.example.org",
    )


def _host_of(name: str) -> str:
    """A host in ASCII, an IPv6 address in brackets. Raises ValueError for what browsers write otherwise."""
    if ":" in name:
        return f"[{ipaddress.IPv6Address(name)}]"
    written = name.encode("idna").decode("ascii")
    if not name.isascii() and written.encode("ascii").decode("idna") != name:
        raise ValueError(f"{name} would become {written}")  # such as a sharp s: another's host
    return written
