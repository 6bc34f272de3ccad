"""Files and folders that are replaced are the old or the new one, whole, whenever the process is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from rehead import durable
from rehead.durable import new_folder, replace_folder, replaced_file, replaced_folder, write_text
from rehead.runs import folder as run_folder
from rehead.runs.folder import RunFolder

NAMES = ("one", "two")
MOMENTS = 400  # more than any of these has lines


def kill_at_line(number: int, files: set[str], work: Callable[[], None]) -> bool:
    """Does `work` in a process that gets SIGKILL before it runs the number-th line of these files. False: there were fewer."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = number

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    status = 1
    try:
        sys.settrace(trace)  # type: ignore[arg-type]
        work()
        status = 0
    finally:
        os._exit(status)


def whole_at_every_moment(files: set[str], work: Callable[[], None], content: Callable[[], str]) -> list[str]:
    """What is found after a kill before each line, from the first on; the last is what a work that was not killed leaves."""
    found: list[str] = []
    for number in range(1, MOMENTS):
        killed = kill_at_line(number, files, work)
        found.append(content())
        if not killed:
            return found
    raise AssertionError(f"not over after {MOMENTS} lines")


def folder_with(path: Path, text: str, names: tuple[str, str] = NAMES) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text(text)
    return path


def text_of(path: Path, names: tuple[str, str] = NAMES) -> str:
    one, two = ((path / name).read_text() for name in names)
    assert one == two
    return one


@pytest.mark.slow
def test_a_folder_is_the_old_or_the_new_one_before_every_line(tmp_path: Path) -> None:
    place = folder_with(tmp_path / "place", "old")

    def work() -> None:
        with replaced_folder(place) as folder:
            for name in ("one", "two"):
                (folder / name).write_text("new")

    found = whole_at_every_moment({durable.__file__}, work, lambda: text_of(place))
    assert set(found) == {"old", "new"}
    assert found[0] == "old"
    assert found[-1] == "new"
    assert found.index("new") < len(found) - 1  # it was also killed between the exchange and the end


@pytest.mark.long
def test_a_file_is_the_old_or_the_new_one_before_every_line(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("old")

    def work() -> None:
        with replaced_file(place) as temporary:
            temporary.write_text("new")

    found = whole_at_every_moment({durable.__file__}, work, place.read_text)
    assert set(found) == {"old", "new"}
    assert found[-1] == "new"


@pytest.mark.slow
def test_a_run_that_is_replaced_is_the_old_or_the_new_one_before_every_line(tmp_path: Path) -> None:
    names = ("log.txt", "recipe.toml")
    out = folder_with(tmp_path / "run", "old", names)

    def work() -> None:
        with RunFolder(out, force=True) as run:
            run.create("photos", "network")
            for name in names:
                run.write(name, "new")
            run.finish()

    found = whole_at_every_moment({run_folder.__file__}, work, lambda: text_of(out, names))
    assert set(found) == {"old", "new"}
    assert found[-1] == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_without_an_exchange_the_older_folder_is_whole_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_exchanged", lambda *_: False)
    place = folder_with(tmp_path / "place", "old")

    def work() -> None:
        new = tmp_path / "new"
        if not new.exists():
            folder_with(new, "new")
        replace_folder(new, place)

    def content() -> str:
        return text_of(place if place.exists() else next(tmp_path.glob(".place.*")))

    found = whole_at_every_moment({durable.__file__}, work, content)
    assert set(found) == {"old", "new"}
    assert found[-1] == "new"


def test_a_folder_that_cannot_be_placed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_exchanged", lambda *_: False)
    place = folder_with(tmp_path / "place", "old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", place)
    assert text_of(place) == "old"


def test_a_new_folder_leaves_one_that_came_first_in_peace(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with new_folder(place) as folder:
        (folder / "one").write_text("late")
        folder_with(place, "first")
    assert text_of(place) == "first"
    assert os.listdir(tmp_path) == ["place"]


def unable(number: int, is_folder: bool) -> Callable[[int], None]:
    """What takes the place of os.fsync where folders, or else files, cannot be flushed."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == is_folder:
            raise OSError(number, os.strerror(number))

    return fsync


def test_where_folders_cannot_be_flushed_files_and_folders_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path / "place", "old")
    monkeypatch.setattr(os, "fsync", unable(errno.EINVAL, is_folder=True))
    with replaced_folder(tmp_path / "place") as folder:
        folder_with(folder / "below", "new")
    write_text(tmp_path / "file", "new")
    assert text_of(tmp_path / "place" / "below") == (tmp_path / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "place"]


def test_a_file_is_flushed_where_only_what_may_be_written_to_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:  # as on Windows
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    (tmp_path / "file").write_text("text")
    with monkeypatch.context() as windows:
        windows.setattr(os, "fsync", fsync)
        windows.setattr(os, "name", "nt")
        durable._flush(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize(("number", "is_folder"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_what_did_not_reach_the_disk_is_an_error(
    number: int, is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", unable(number, is_folder))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_text(tmp_path / "file", "new")


@pytest.mark.parametrize("name", ["日" * 85, "a" + "🐈" * 63, "a" * 255], ids=["three bytes", "four bytes", "one byte"])
def test_a_name_may_be_as_long_as_the_disk_takes(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "text")
    with replaced_folder(tmp_path / "below" / name) as place:
        write_text(place / "file", "text")
    assert (tmp_path / name).read_text() == (tmp_path / "below" / name / "file").read_text() == "text"


def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    place, link = folder_with(tmp_path / "place", "old"), tmp_path / "link"
    link.symlink_to(place)
    with replaced_folder(link) as folder:
        for name in ("one", "two"):
            (folder / name).write_text("new")
    assert link.is_symlink()
    assert text_of(place) == "new"


def test_a_link_to_a_run_stays_when_the_run_is_replaced(tmp_path: Path) -> None:
    place, link = tmp_path / "disk" / "place", tmp_path / "link"
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text("old")
    link.symlink_to(place)
    with RunFolder(link, force=True) as run:
        run.create("photos", "network")
        run.write("log.txt", "new")
        assert (link / "recipe.toml").read_text() == "old"
        assert run.finish() == link
    assert link.is_symlink()
    assert sorted(path.name for path in place.iterdir()) == ["log.txt"]
