"""Runs read back from disk: finished, interrupted, and written right now."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from disks import small_disk

from rehead.errors import RunError
from rehead.runs.contents import CHECKPOINT, LOCK, TRIES, is_running
from rehead.runs.folder import RunFolder
from rehead.runs.listing import Run, read_run
from rehead.runs.place import cache_of
from rehead.runs.resume import Asked
from rehead.tuning.recipe import Recipe
from rehead.verdict.judging import judge_task


def whole(path: Path, seed: int) -> Path:
    """A folder that looks like a finished run."""
    path.mkdir()
    (path / "recipe.toml").write_text(Recipe(seed=seed).to_toml())
    (path / "verdict.json").write_text("{}")
    return path


def replacing(out: Path, *, learned: bool) -> RunFolder:
    """A job that was killed while it was to replace a run."""
    with RunFolder(out, force=True) as run:
        run.create("photos", "efficientnet_lite0")
        run.write("recipe.toml", Recipe(seed=2).to_toml())
        run.within("first").write("note.txt", "")
        if learned:
            (run.path / CHECKPOINT).write_bytes(b"of another seed")
    return run


def test_what_a_killed_job_left_without_a_checkpoint_is_begun_again(tmp_path: Path) -> None:
    out = whole(tmp_path / "run", 1)
    (tmp_path / ".run.new" / "tries" / "first").mkdir(parents=True)
    with contextlib.suppress(KeyboardInterrupt), RunFolder(out, force=True) as run:
        run.create("photos", "efficientnet_lite0")
        assert {path.name for path in run.path.iterdir()} == {LOCK}
        raise KeyboardInterrupt
    assert not (tmp_path / ".run.new").exists()
    assert (out / "verdict.json").is_file()


def test_a_run_that_was_to_replace_another_is_not_lost_and_takes_its_place_when_it_goes_on(tmp_path: Path) -> None:
    out = whole(tmp_path / "run", 1)
    left = replacing(out, learned=True).path
    assert left == tmp_path / ".run.new"
    again = RunFolder(out, force=True)
    with pytest.raises(RunError, match="A run that was to replace") as error, again:
        again.create("photos", "efficientnet_lite0")
    assert error.value.what.endswith("run was interrupted.")
    assert f"rehead tune --resume {left}" in error.value.fix
    assert (left / CHECKPOINT).read_bytes() == b"of another seed"
    with RunFolder(None, force=False, resume=left) as run:
        run.create("photos", "efficientnet_lite0")
        assert (run.path, run.name) == (left, "run")
        assert is_running(out)  # no other job goes on with what is to be replaced
        run.write("verdict.json", "{}")
        assert run.finish() == out
    assert not left.exists()
    assert "seed = 2" in (out / "recipe.toml").read_text()
    assert {path.name for path in out.iterdir()} == {"recipe.toml", "verdict.json"}


def test_a_finished_run_that_could_not_replace_another_is_not_emptied(tmp_path: Path) -> None:
    out = whole(tmp_path / "run", 1)
    left = whole(tmp_path / ".run.new", 2)
    again = RunFolder(out, force=True)
    with pytest.raises(RunError, match="is finished, and lies in") as error, again:
        again.create("photos", "efficientnet_lite0")
    assert error.value.fix == "Move it to where you want it, or remove it."
    assert {path.name for path in left.iterdir()} == {"recipe.toml", "verdict.json"}


def test_what_was_not_to_be_replaced_stays_where_a_run_goes_on_beside_it(tmp_path: Path) -> None:
    """It is no run, or holds somebody's own files."""
    for name, file in (("photos", "mine.txt"), ("run", "mine.txt")):
        out = tmp_path / name
        left = replacing(whole(out, 1), learned=True).path
        if name == "photos":
            (out / "recipe.toml").unlink()
        (out / file).write_text("mine")
        with RunFolder(None, force=False, resume=left) as run:
            run.create("photos", "efficientnet_lite0")
            assert run.finish() == left
        assert (out / file).read_text() == "mine"


@pytest.mark.parametrize("where", [(), (TRIES, "first")], ids=["its own", "of a first phase"])
def test_settings_that_were_forced_stay_once_a_checkpoint_was_written_with_them(
    tmp_path: Path, where: tuple[str, ...]
) -> None:
    run = interrupted(tmp_path / "run")
    path = run.joinpath(*where, CHECKPOINT)
    path.parent.mkdir(parents=True, exist_ok=True)
    for writes in (False, True):
        with contextlib.suppress(KeyboardInterrupt), RunFolder(None, force=True, resume=run) as again:
            again.create("photos", "efficientnet_lite0")
            again.write("recipe.toml", Recipe(seed=7).to_toml())
            if writes:
                path.write_bytes(b"later")
                os.utime(path, ns=(2**62, 2**62))
            raise KeyboardInterrupt
        assert ("seed = 7" in (run / "recipe.toml").read_text()) == writes


def test_a_race_replaces_no_run(tmp_path: Path) -> None:
    out = whole(tmp_path / "run", 1)
    with pytest.raises(RunError, match="is a run, which a race does not replace"):
        RunFolder(out, force=True, races=True)
    (tmp_path / "race").mkdir()
    (tmp_path / "race" / "race.json").write_text("{}")
    RunFolder(tmp_path / "race", force=True, races=True)


def test_a_run_knows_the_cache_that_it_was_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEAD_CACHE", str(tmp_path / "usual"))
    run, kept = whole(tmp_path / "run", 1), tmp_path / "kept"
    (run / "photos.json").write_text(json.dumps({"cache": str(kept)}))
    (run / "bundle").mkdir()
    assert cache_of(run, None) == tmp_path / "usual"  # it is not there any more
    kept.mkdir()
    assert cache_of(run, None) == cache_of(run / "bundle", None) == kept
    assert cache_of(run, tmp_path / "asked") == tmp_path / "asked"
    assert cache_of(None, None) == tmp_path / "usual"
    (run / "photos.json").write_text("[")
    assert cache_of(run, None) == tmp_path / "usual"


def test_home_is_understood_as_where_photos_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = Asked.of("~/photos", "auto", "~/valid", Path("~/later"))
    assert (asked.source, asked.valid, asked.test) == tuple(
        f"{tmp_path}/{name}" for name in ("photos", "valid", "later")
    )
    with RunFolder("~/run", force=False) as run:
        run.create("photos", "efficientnet_lite0")
        run.write("recipe.toml", Recipe().to_toml())
        (run.path / CHECKPOINT).write_bytes(b"")
    assert run.path == tmp_path / "run"
    with RunFolder("~/run", force=False, resume="~/run") as again:
        assert again.path == run.path


def test_a_run_is_running_while_a_job_writes_it_and_can_be_taken_up_after_that(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "efficientnet_lite0")
        run.write("recipe.toml", Recipe().to_toml())
        run.write("photos.json", "{}")
        (run.path / CHECKPOINT).write_bytes(b"")
        seen = read_run(tmp_path / "run")
        assert (seen.is_running, seen.can_resume) == (True, False)
    seen = read_run(tmp_path / "run")
    assert (seen.is_running, seen.can_resume) == (False, True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows write any file")
def test_a_run_that_may_only_be_read_is_running_only_while_a_job_writes_it(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    with filelock.FileLock(run / LOCK):
        (run / LOCK).chmod(0o444)
        run.chmod(0o555)
        assert is_running(run)
    assert not is_running(run)
    run.chmod(0o755)


def test_a_run_that_another_job_writes_is_not_taken_up(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    with RunFolder(None, force=False, resume=run) as first:
        first.create("photos", "efficientnet_lite0")
        with pytest.raises(RunError, match="Another job is writing") as error:
            RunFolder(None, force=False, resume=run)
        assert error.value.fix == "Wait for it."


def test_a_run_that_finishes_while_another_job_begins_to_go_on_with_it_is_left_as_it_is(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    late = RunFolder(None, force=False, resume=run)  # and reads its photos
    with RunFolder(None, force=False, resume=run) as first:
        first.create("photos", "efficientnet_lite0")
        (run / "bundle").mkdir()
        first.write("bundle/rehead.json", "{}")
        first.write("verdict.json", "{}")
        first.finish()
    with pytest.raises(RunError, match="is finished"), late:
        late.create("photos", "efficientnet_lite0")
    assert {path.name for path in run.iterdir()} == {"recipe.toml", "verdict.json", "bundle"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write: No space left on device (os error 28)")],
    ids=["of no name", "in a library's words"],
)
def test_a_full_disk_is_the_runs(error: Exception, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError) as caught:
        failing(out, error)
    assert caught.value.what == f"The run could not be written to {out}: No space left on device."
    with pytest.raises(RunError, match=f"The run could not be written to {out}: Read-only file system"):
        failing(out, OSError(errno.EROFS, os.strerror(errno.EROFS), str(out / "recipe.toml")))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("part", ["first", "balanced"])
def test_a_disk_that_is_full_in_a_part_of_a_run_names_how_to_go_on_from_its_checkpoint(
    part: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError) as ended:
        failing(out, FULL, part)
    run = RunFolder(None, force=False)
    run.path = out
    with pytest.raises(RunError) as refused:
        run.within(part).check_room(1 << 60, "the bundle")
    for error in ended.value, refused.value:
        assert error.what == f"The run could not be written to {out}: No space left on device."
        assert error.why.endswith(" MB are free. Its last checkpoint is whole.")
        assert error.fix == f"Make room, and go on from there: rehead tune --resume {out}"


def test_a_run_that_is_taken_up_hears_of_a_full_disk_without_another_folder(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "run")
    (path / CHECKPOINT).unlink()
    with pytest.raises(RunError) as caught:
        failing(None, FULL, resume=path)
    assert caught.value.what == f"The run could not be written to {path}: No space left on device."
    assert caught.value.why.endswith(" MB are free. The features are kept.")
    assert caught.value.fix == f"Make room, and go on from there: rehead tune --resume {path}"
    (path / LOCK).unlink()
    (path / LOCK).mkdir()
    with pytest.raises(RunError) as caught:
        failing(None, FULL, resume=path)
    assert caught.value.what == f"The run cannot be written to {path}."
    assert caught.value.fix.endswith(f"you may write to it: rehead tune --resume {path}")


def test_a_full_disk_of_a_file_elsewhere_is_not_the_runs(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "agreement.json"
    with pytest.raises(RunError) as caught:
        failing(tmp_path / "run", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(kept)))
    assert caught.value.what == f"{kept} could not be written: No space left on device."
    assert caught.value.why.endswith(" MB are free.")


def test_a_file_that_is_called_as_a_full_disk_is_none(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        failing(tmp_path / "run", PermissionError(errno.EACCES, "Permission denied", "No space left on device.txt"))


def failing(out: Path | None, error: Exception, part: str | None = None, resume: Path | None = None) -> None:
    """A job that ends with this error, where a part is named with a checkpoint in that."""
    with RunFolder(out, force=False, resume=resume) as run:
        run.create("photos", "efficientnet_lite0")
        if part is not None:
            (run.within(part).path / CHECKPOINT).write_bytes(b"")
        raise error


def interrupted(path: Path) -> Path:
    """A run with a checkpoint."""
    with contextlib.suppress(KeyboardInterrupt), RunFolder(path, force=False) as run:
        run.create("photos", "efficientnet_lite0")
        run.write("recipe.toml", Recipe().to_toml())
        (run.path / CHECKPOINT).write_bytes(b"")
        raise KeyboardInterrupt
    return path


def test_an_empty_folder_is_written_in_place_also_a_mounted_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for out, force in ((tmp_path / "link", False), (tmp_path / "empty", True)):
        with contextlib.suppress(KeyboardInterrupt), RunFolder(out, force=force) as run:
            run.create("photos", "network")
            run.write("log.txt", "")
            assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
            raise KeyboardInterrupt
        assert out.is_dir()
        assert list(out.iterdir()) == [], "as it was"
    with small_disk(tmp_path / "disk", "size=1m") as out:
        assert finished(out, force=False) == out
        assert sorted(path.name for path in out.iterdir()) == ["race.json"]


def test_a_mounted_run_is_refused_before_the_work_and_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as out:
        finished(out, force=False)
        with pytest.raises(RunError, match="is a mounted folder, which cannot be replaced") as error:
            RunFolder(out, force=True)
        assert error.value.fix == f"Name a folder in it, as --out {out / 'run'}, or empty it first."
        monkeypatch.setattr("os.path.ismount", lambda _: False)  # as of a folder that is mounted from the same disk
        with pytest.raises(RunError, match=r"The run is finished, and .*disk cannot be replaced by it") as error:
            finished(out, force=True)
        assert error.value.fix == f"It lies in {tmp_path / '.disk.new'}: move it to where you want it."
        assert (tmp_path / ".disk.new" / "race.json").is_file()
        with pytest.raises(RunError, match=r"A race that was to replace .* is finished"):
            finished(out, force=True)
        assert (tmp_path / ".disk.new" / "race.json").is_file()
        monkeypatch.undo()


def finished(out: Path, *, force: bool) -> Path:
    """A race in a folder."""
    with RunFolder(out, force=force) as run:
        run.create("photos", "network")
        run.write("race.json", "")
        return run.finish()


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_run_that_another_job_has_written_meanwhile_is_not_replaced_unasked(tmp_path: Path, interrupts: bool) -> None:
    out = tmp_path / "run"
    late = RunFolder(out, force=False)  # and unpacks an archive
    interrupted(out) if interrupts else finished(out, force=False)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(RunError, match="run is there already"), late:
        late.create("photos", "network")
    assert sorted(path.name for path in out.iterdir()) == before
    assert os.listdir(tmp_path) == ["run"]


def test_a_race_is_not_replaced_while_another_job_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    late = RunFolder(out, force=True)
    with RunFolder(out, force=False) as first:
        first.create("photos", "race")
        with pytest.raises(RunError, match="Another job is writing"), late:
            late.create("photos", "race")
        with pytest.raises(RunError, match="Another job is writing"):
            RunFolder(out, force=False)
        first.write("race.json", "of the first")
        first.finish()
    assert (out / "race.json").read_text() == "of the first"
    assert os.listdir(tmp_path) == ["run"]


def test_of_two_jobs_that_found_one_empty_folder_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    late = RunFolder(out, force=False)
    lock = RunFolder._lock

    def after_the_first(run: RunFolder, path: Path) -> None:
        """The other job takes the folder, and finishes, just before this one would lock it."""
        monkeypatch.setattr(RunFolder, "_lock", lock)
        finished(out, force=False)
        lock(run, path)

    monkeypatch.setattr(RunFolder, "_lock", after_the_first)
    with pytest.raises(RunError, match="run is there already"), late:
        late.create("photos", "network")
    assert [path.name for path in out.iterdir()] == ["race.json"]


def test_what_a_job_left_that_was_killed_as_it_began_is_no_run_and_may_be_written_over(tmp_path: Path) -> None:
    for out, force in ((tmp_path / "one", False), (tmp_path / "two", True)):
        out.mkdir()
        for name in (LOCK, "log.txt", ".race.json.0123456789ab.part"):
            (out / name).write_text("")
        assert finished(out, force=force) == out
        assert os.listdir(out) == ["race.json"]
    (out / "race.json").rename(out / "log.txt")
    with pytest.raises(RunError, match="is no run of rehead"):
        RunFolder(out, force=True)


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "mAP"), ("regression", "mean error")])
def test_a_run_says_the_first_number_of_its_verdict_and_what_it_is(task: Any, metric: str, tmp_path: Path) -> None:
    outputs = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    targets = (outputs > 0.5).astype(np.float32) if task == "multilabel" else outputs[:, 0] + 0.25
    verdict = judge_task(
        task, outputs, targets, classes=("a", "b"), thresholds=(0.5, 0.5), median=0.0,
        paths=[f"{i}.png" for i in range(20)], side="drawn", n_train=9, notes=(),
    )  # fmt: skip
    run = Run(tmp_path, Recipe(), 0.0, verdict, "", {}, None, is_running=False, can_resume=False)
    score = run.to_dict()["score"]
    assert score["metric"] == metric
    assert score["value"] == pytest.approx(1.0 if task == "multilabel" else 0.25, abs=1e-6)
    assert score["low"] <= score["value"] <= score["high"]


def test_what_the_job_itself_decided_may_be_asked_for_again() -> None:
    asked = Asked("photos", "auto", None, None, settled={"backbone": "auto", "budget_s": 600.0})
    assert asked.others({"backbone": "auto", "budget_s": 600, "lr": 0.1}) == {"lr": 0.1}
    assert asked.others({"backbone": "resnet50", "budget_s": 60}) == {"backbone": "resnet50", "budget_s": 60}
