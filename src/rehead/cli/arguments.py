"""What a person types, understood: times, arguments for a backbone, Ctrl-C; and what the program says when it fails."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import io
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from rehead.cli.tables import say
from rehead.durable import FULL
from rehead.errors import RecipeError, ReheadError, RunError, SourceError, missing_extras

ABORTED = 130  # what shells give a program that Ctrl-C ended
KEPT = "What was computed is kept, and not computed again."
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
USUAL_UNIT = {"older-than": "d"}  # what is most likely meant where none is given; elsewhere minutes


def as_seconds(text: str | None, option: str) -> float | None:
    """'90s', '2m', '1.5h' or '30d' in seconds. Raises RecipeError for anything else, a number without a unit included."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if match is None:
        raise RecipeError(
            what=f"--{option} {text!r} is no length of time.", fix=f"For example: --{option} 2m (or s, h, d)"
        )
    if not match[2]:
        n = match[1]
        raise RecipeError(
            what=f"--{option} {n} does not say whether seconds, minutes, hours or days are meant.",
            fix=f"Write {n}s, {n}m, {n}h or {n}d, such as --{option} {n}{USUAL_UNIT.get(option, 'm')}.",
        )
    return float(match[1]) * SECONDS[match[2]]


def as_bytes(size: float) -> str:
    """A number of bytes for people: '17.3 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_rate(text: str | None) -> float | str | None:
    """'0.001' as a number, 'auto' as it is. Raises RecipeError for anything else."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise RecipeError(what=f"--lr {text!r} is no number.", fix="For example: --lr 0.001, or --lr auto") from None


def backbone_arguments(texts: Sequence[str], of: str = "") -> dict[str, Any]:
    """'pad_type=same', 'mean=0.5' -> values by name. of: what stood before each. Raises RecipeError where there is no '='."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise RecipeError(
                what=f"--backbone-arg {of + text!r} has no NAME=VALUE.",
                fix=f"For example: --backbone-arg {of}pad_type=same",
            )
        values[name.strip()] = _value(value.strip())
    return values


def named(photos: str | None) -> str | None:
    """The name of a source of photos as it is. Raises SourceError where it is empty: that would be the current folder."""
    if photos is not None and not photos.strip():
        raise SourceError(
            what="The folder of photos has an empty name.",
            fix="Name a folder of labelled photos; the current one is `.`",
        )
    return photos


def not_empty(text: str | None, option: str) -> str | None:
    """The value of an option as it is. Raises RecipeError where it is empty, as a variable of a script may be."""
    if text is not None and not text.strip():
        raise RecipeError(what=f"--{option} has an empty name.", fix=f"Name one, or leave --{option} out.")
    return text


def check_apart(context: Any, option: str, names: Sequence[str], why: str) -> None:
    """Raises RecipeError where one of these parameters was typed together with an option to which it says nothing."""
    sources = {name: context.get_parameter_source(name) for name in names}
    typed = [f"--{name.replace('_', '-')}" for name, source in sources.items() if source.name == "COMMANDLINE"]
    if typed:
        fix = f"Leave {'it' if len(typed) == 1 else 'them'} out, or {option}."
        raise RecipeError(what=f"{option} goes without {' and '.join(typed)}.", why=why, fix=fix)


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part.strip()) for part in text.split(","))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Interrupt:
    """Asked, as a function, whether extraction is to stop. The first Ctrl-C during extraction says yes; any other aborts. Of
    a job that asked it is said then that what was computed is kept."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._listening = self._stopped = False
        self._before: Any = None

    def __call__(self) -> bool:
        self._listening = True
        return self._stopped

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # the job ends anyway; a hasty Ctrl-C must not tear its last words
            if self._listening and isinstance(exception[1], KeyboardInterrupt):
                self._progress.note(KEPT)
            self._progress.close()
        elif self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped or not self._listening:
            raise KeyboardInterrupt
        self._stopped = True
        self._progress.note("Stopping: the job goes on with what is there, to its end. Ctrl-C again aborts.")


def guarded(app: Any) -> int:
    """Runs the program and gives its exit code; errors are shown in words, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    _open_missing_streams()
    warnings.filterwarnings("ignore", module="PIL")  # a damaged photo is listed with its reason, once
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes
    with _output() as (out, is_unread):
        return _run(app, debug, out, is_unread)


def _open_missing_streams() -> None:
    """Standard streams that are closed, as by `>&-`, lead nowhere. Else a file that is opened would get the number of one, and
    what libraries say there would stand in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _run(app: Any, debug: bool, out: Any, is_unread: Callable[[], bool]) -> int:
    try:
        with missing_extras():
            code = int(app(standalone_mode=False, prog_name="rehead") or 0)
        _flush()
        return _aborted() if code == ABORTED else code  # Typer turns Ctrl-C into a code of its own
    except ReheadError as error:
        if debug:
            raise
        _close_and_show(error)
        return error.exit_code
    except (KeyboardInterrupt, EOFError):
        return _aborted()
    except (BrokenPipeError, SystemExit) as error:  # Typer makes SystemExit(1) of a broken pipe
        broken = error if isinstance(error, BrokenPipeError) else error.__context__
        if not isinstance(broken, BrokenPipeError):
            raise
        if not is_unread():
            return _other(broken, debug)
        for stream in (out, sys.stderr):  # the reader has enough, as in `| head`
            with contextlib.suppress(OSError):
                stream.close()
        return 0
    except OSError as error:
        if debug or not _is_unwritten(error):
            return _other(error, debug)
        failed = output_failed(error)
        _close_and_show(failed)
        return failed.exit_code
    except Exception as error:
        return _other(error, debug)


def _is_unwritten(error: OSError) -> bool:
    """Whether it is standard output that takes no more, and not another file without a name: it takes no line either."""
    if error.errno not in {*FULL, errno.EIO} or error.filename is not None or sys.stdout.closed:
        return False
    try:
        print(flush=True)
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _output() -> Iterator[tuple[Any, Callable[[], bool]]]:
    """Standard output, and whether it is a pipe that nobody reads any more. Typer and rich put something else in its place when
    any pipe breaks."""
    out = sys.stdout
    try:
        descriptor = os.dup(out.fileno())
    except (AttributeError, OSError, ValueError):  # it is closed, or of a test
        yield out, lambda: False
        return
    try:
        yield out, functools.partial(_is_unread, descriptor)
    finally:
        os.close(descriptor)


def _is_unread(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def leave(code: int) -> NoReturn:
    """Ends the process. Where PyTorch was loaded, without taking the interpreter apart: that would page in CUDA's libraries to
    unload them, a second and 120 MB for nothing. Whatever else is under way is waited for in the usual way."""
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    if "torch" not in sys.modules or others:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def output_failed(error: OSError) -> RunError:
    """What to say when standard output takes no more; it is closed, so that nothing is tried again at the end."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
    return RunError(
        what="Standard output cannot be written.",
        why=f"{error.strerror or error}.",
        fix="Make room on the disk it goes to, or let it go elsewhere.",
    )


def _flush() -> None:
    if sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_failed(error) from error


def _close_and_show(error: ReheadError) -> None:
    from rehead.cli.terminal import show_error

    show_error(error)


def _other(error: Exception, debug: bool) -> int:
    """Typer's own complaints about options, and what nobody thought of."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        _say_mistyped(error)
        return 2
    if type(error).__name__ == "Abort":  # what Typer makes of Ctrl-C
        return _aborted()
    if debug:
        raise error
    say(
        f"Error: rehead failed in a way it should not: {type(error).__name__}: {error}\n"
        "  Run the command again with --debug for the traceback, and please report it.",
        sys.stderr,
    )
    return 1


def _say_mistyped(error: Any) -> None:
    """What is wrong with an option, as other errors are shown; the help where nothing was typed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    command = getattr(getattr(error, "ctx", None), "command_path", "rehead")
    say(f"Error: {error.format_message()}\n  See: {command} --help", sys.stderr)


def _aborted() -> int:
    say("Aborted.", sys.stderr)
    return ABORTED
