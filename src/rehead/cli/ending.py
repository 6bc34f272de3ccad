"""How the program ends: its exit code, what it says when it fails, and standard streams that are closed or full."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import io
import os
import select
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rehead.cli.tables import say
from rehead.durable import FULL
from rehead.errors import ReheadError, RunError, missing_extras

ABORTED = 130  # what shells give a program that Ctrl-C ended


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
