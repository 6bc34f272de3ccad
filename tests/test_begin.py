"""What a job says before it reads a photo, and of the photos it found."""

from __future__ import annotations

import csv
import errno
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_photos, noise

import rehead
from rehead.begin import Begun, Wish, begun
from rehead.bundle_facts import Task
from rehead.bundled import with_bundle
from rehead.errors import (
    BackboneError,
    DiskFull,
    EngineError,
    MissingExtra,
    RecipeError,
    ReheadError,
    RunError,
    SourceError,
    TooManyBad,
    UnknownBackbone,
    WeightsMismatch,
    WeightsUnavailable,
)
from rehead.progress import Clock, Silent
from rehead.runs.about import published
from rehead.runs.contents import CHECKPOINT
from rehead.runs.folder import RunFolder
from rehead.runs.log import Log
from rehead.runs.origins import asked_of
from rehead.runs.outputs import FILE as OUTPUTS
from rehead.runs.resume import Asked
from rehead.search.tries import Search
from rehead.tuning.options import unheard
from rehead.tuning.recipe import Recipe, load

Program = Callable[..., "subprocess.CompletedProcess[str]"]


class Notes:
    """A listener that keeps what is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, n: int = 1) -> None: ...
    def status(self, text: str) -> None: ...
    def row(self, cells: object) -> None: ...


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"backbone": "resnet81"}, UnknownBackbone, "No backbone is called 'resnet81'."),
        ({"weights": "nowhere.pth"}, WeightsUnavailable, f"There is no weights file {Path.cwd() / 'nowhere.pth'}."),
        ({"weights": "/"}, WeightsUnavailable, "/ is a folder, not a file of weights."),
        ({"weights": "cut short"}, WeightsMismatch, "cut short.pth cannot be read as weights."),
        (
            {"weights": "of another network"},
            WeightsMismatch,
            "of another network.pth do not fit",
        ),
        ({"train": "lora:8"}, RecipeError, "--train lora:8 finds no attention or linear layer to adapt."),
        ({"device": "mps"}, EngineError, "There is no device mps here."),
        ({"device": "mps", "engine": "openvino"}, EngineError, "The engine openvino runs on the CPU here, not on mps."),
        ({"backbone_args": {"nonsense": 1}}, BackboneError, "timm cannot make tf_efficientnet_lite0 with"),
    ],
)
def test_what_cannot_be_had_is_said_before_photos_are_read(
    settings: dict[str, object], error: type[Exception], words: str, photos: Path, cache: Path, tmp_path: Path
) -> None:
    if "weights" in settings and (kind := settings["weights"]) in ("cut short", "of another network"):
        file = tmp_path / f"{kind}.pth"
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
        if kind == "cut short":
            file.write_bytes(file.read_bytes()[:1000])
        settings = {"weights": str(file)}
    pytest.importorskip("openvino") if settings.get("engine") == "openvino" else None
    told = Notes()
    with pytest.raises(error, match=re.escape(words)):
        rehead.tune(photos, cache=cache, out=tmp_path / "run", progress=told, **settings, report=False)
    assert not {"Listing", "Reading"} & set(told.phases)


@pytest.mark.parametrize("name", ["torch", "openvino", "openvino-bf16"])
def test_an_engine_that_is_not_installed_is_told_before_photos_are_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *a: None if wanted == name.split("-")[0] else found(wanted, *a)
    )
    with pytest.raises(MissingExtra, match=f"The engine {name}"):
        rehead.tune(tmp_path / "no photos", engine=name, device="cpu", cache=tmp_path / "cache", out=tmp_path / "run")


def test_weights_that_are_no_numbers_are_called_so(photos: Path, cache: Path, tmp_path: Path) -> None:
    import timm

    network = timm.create_model("resnet18", pretrained=False)
    with torch.no_grad():
        network.layer2[0].conv1.weight.fill_(float("nan"))
    torch.save(network.state_dict(), tmp_path / "r18.pth")
    with pytest.raises(BackboneError) as caught:
        rehead.tune(
            photos,
            cache=cache,
            out=tmp_path / "run",
            backbone="resnet18",
            weights=str(tmp_path / "r18.pth"),
            report=False,
        )
    assert caught.value.what == "What the backbone resnet18 gives for these photos is no numbers (NaN or infinite)."
    assert caught.value.why == "Its weights are of: file r18.pth."
    assert caught.value.fix.startswith("The weights file is likely damaged")


def test_a_full_cache_is_named_while_the_backbone_is_prepared(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rehead.exporting.prefixes.write_bytes", full)
    with pytest.raises(DiskFull) as caught:
        rehead.tune(photos, cache=tmp_path / "cache", out=tmp_path / "run", report=False)
    assert caught.value.what == f"The disk of {tmp_path / 'cache'} is full."
    assert re.match(r"13\.5 MB were needed for the network efficientnet_lite0; [\d.]+ MB are free\.", caught.value.why)
    assert "--cache DIR" in caught.value.fix


def test_a_full_disk_of_the_run_says_how_much_was_needed(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 3_000_000})
    monkeypatch.setattr("rehead.runs.folder.shutil.disk_usage", lambda _: usage)
    with pytest.raises((RunError, DiskFull)) as caught:
        rehead.tune(photos, cache=cache, out=tmp_path / "run", limit=20, report=False)
    assert caught.value.what == f"The run could not be written to {tmp_path / 'run'}: No space left on device."
    assert re.search(r"1[34]\.\d MB were needed for the bundle; 3\.0 MB are free\.", caught.value.why)
    assert caught.value.fix == "Make room, or name a folder on another disk: --out DIR"


def test_an_interrupted_run_in_the_way_names_how_to_go_on(photos: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "r_k").mkdir()
    (tmp_path / "r_k" / "recipe.toml").write_text(Recipe().to_toml())
    with pytest.raises(RunError) as caught:
        rehead.tune(photos, cache=cache, out=tmp_path / "r_k", report=False)
    assert caught.value.what == f"{tmp_path / 'r_k'} is there already: a run that was interrupted."
    assert caught.value.fix.startswith(f"Go on with it: rehead tune --resume {tmp_path / 'r_k'}; or name another --out")


def test_a_run_that_is_taken_up_with_its_photos_elsewhere_knows_the_new_place(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "efficientnet_lite0")
        run.write("recipe.toml", Recipe().to_toml())
        run.write_json("photos.json", {**Asked.of(photos, "auto", None, None).to_dict(), "report": False})
        (run.path / CHECKPOINT).write_bytes(b"")
    moved = photos.rename(tmp_path / "moved")
    taken_up(tmp_path / "run", cache, source=moved, report=None)
    asked = asked_of(tmp_path / "run")
    assert (asked.source, asked.root, asked.report) == (str(moved), str(moved), False)


def wish(source: Path | None = None, **asked: Any) -> Wish:
    """What a job is asked for, as little as there can be."""
    little: dict[str, Any] = {
        "layout": "auto",
        "valid": None,
        "test": None,
        "preset": None,
        "resume": None,
        "from_run": None,
    }
    return Wish(source, **{**little, "track": (), "settings": {}, "force": False, "report": False, **asked})


def begin(run: Path, cache: Path, **asked: Any) -> Begun:
    """A run that is left when its photos are read."""
    with RunFolder(run, force=False) as folder:
        return begun(wish(**asked), folder, cache, Log(Silent()), Clock())


def taken_up(run: Path, cache: Path, **asked: Any) -> Begun:
    """A run taken up, as far as its photos are read."""
    with RunFolder(None, force=False, resume=run) as folder:
        return begun(wish(**asked, resume=run), folder, cache, Log(Silent()), Clock())


@pytest.fixture
def left(photos: Path, cache: Path, tmp_path: Path) -> Path:
    """A run that was left when its photos were read, with some to hold out in a folder of their own."""
    test = make_photos(tmp_path / "test", {"blue": 3, "red": 3})
    begin(tmp_path / "run", cache, source=photos, test=test)
    return tmp_path / "run"


def test_sides_that_are_given_to_a_run_that_is_taken_up_are_looked_at(left: Path, cache: Path, tmp_path: Path) -> None:
    other = make_photos(tmp_path / "other", {"grey": 1, "green": 1, "blue": 4, "red": 4})
    kept = (left / "photos.json").read_bytes()
    for side in ("valid", "test"):
        with pytest.raises(RunError, match=f"The photos are not those that the run {left} began with"):
            taken_up(left, cache, **{side: other})
    with pytest.raises(SourceError):
        taken_up(left, cache, layout="split")
    assert (left / "photos.json").read_bytes() == kept
    assert len(taken_up(left, cache, test=other, force=True).catalog.on("test")) == 8
    assert asked_of(left).test == str(other)


def test_photos_that_layers_learned_from_are_not_held_out_also_when_forced(
    left: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    other = make_photos(tmp_path / "other", {"blue": 3, "red": 3})
    next((photos / "red").iterdir()).rename(other / "red" / "learned.png")
    (left / CHECKPOINT).write_bytes(b"")
    for force in (False, True):
        with pytest.raises(RunError, match=r"has learned from 1\."):
            taken_up(left, cache, test=other, force=force)
    (left / CHECKPOINT).unlink()  # nothing was learned yet
    assert len(taken_up(left, cache, test=other, force=True).catalog.on("test")) == 7


@pytest.fixture
def drawn(photos: Path, cache: Path, tmp_path: Path) -> Path:
    """A training with a checkpoint, whose held-out photos were drawn."""
    begin(tmp_path / "run", cache, source=photos)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"")
    return tmp_path / "run"


@pytest.mark.parametrize("is_at_its_end", [False, True])
@pytest.mark.parametrize("dice", [{"valid_fraction": 0.5}, {"seed": 7}], ids=str)
def test_other_dice_hold_out_no_photos_that_layers_learned_from_also_when_forced(
    dice: dict[str, Any], is_at_its_end: bool, drawn: Path, cache: Path
) -> None:
    if is_at_its_end:
        (drawn / OUTPUTS).write_bytes(b"")
    with pytest.raises(RunError, match=r"Of the photos to hold out, the run .* has learned from \d+\."):
        taken_up(drawn, cache, settings=dice, force=True)


def test_a_learned_photo_is_not_held_out_where_those_of_its_class_are_gone(
    drawn: Path, photos: Path, cache: Path
) -> None:
    with (drawn / "catalog.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if (row["label"], row["side"]) == ("red", "valid"):
            (photos / row["path"]).unlink()
    for force in (False, True):
        with pytest.raises(RunError, match=r"has learned from 1\."):
            taken_up(drawn, cache, force=force)


def test_a_training_that_was_interrupted_at_its_very_end_goes_on_though_near_copies_had_changed_sides(
    drawn: Path, cache: Path
) -> None:
    text = (drawn / "catalog.csv").read_text()
    assert ",valid," in text
    (drawn / "catalog.csv").write_text(text.replace(",valid,", ",train,", 1))
    (drawn / OUTPUTS).write_bytes(b"")
    assert taken_up(drawn, cache).catalog.ours
    assert (drawn / "catalog.csv").read_text() == text
    assert "Its layers have learned from other photos before" not in (drawn / "log.txt").read_text()


def test_a_training_does_not_go_on_with_other_classes_and_says_that_it_does_with_other_photos(
    left: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    (left / CHECKPOINT).write_bytes(b"")
    other = make_photos(tmp_path / "other", {"red": 4, "green": 4})
    with pytest.raises(RunError, match="has learned other classes") as caught:
        taken_up(left, cache, source=other, test=make_photos(tmp_path / "held", {"red": 2, "green": 2}), force=True)
    assert caught.value.why == "Its own are 'blue', 'red'; theirs are 'green', 'red'."
    next((photos / "red").iterdir()).unlink()
    taken_up(left, cache, force=True)
    assert "Its layers have learned from other photos before" in (left / "log.txt").read_text()


@pytest.mark.parametrize(
    ("moved", "does", "named"),
    [
        ("photos", "learns from", "rehead tune DIR --resume {run}"),
        ("test", "holds out", "--test DIR"),
    ],
)
def test_photos_of_a_run_that_were_moved_are_asked_for_as_they_are_named_again(
    moved: str, does: str, named: str, left: Path, cache: Path, tmp_path: Path
) -> None:
    kept, place, notes = (left / "photos.json").read_bytes(), tmp_path / moved, Notes()
    (left / CHECKPOINT).write_bytes(b"")
    place.rename(tmp_path / "moved")
    with pytest.raises(RunError) as caught:
        rehead.tune(resume=left, cache=cache, progress=notes)
    assert caught.value.what == f"There is nothing at {place} any more."
    assert caught.value.why == f"The run {left} {does} the photos that were there."
    assert caught.value.fix == f"Name where they are now: {named.format(run=left)}"
    assert (left / "photos.json").read_bytes() == kept
    with pytest.raises(SourceError):
        rehead.tune(
            **{"source" if moved == "photos" else moved: tmp_path / "mover"}, resume=left, cache=cache, progress=notes
        )
    assert not [note for note in notes.notes if "Go on from it" in note], "it is what was refused"


def test_the_layout_of_a_run_stays_where_its_photos_are_named_again(cache: Path, tmp_path: Path) -> None:
    for name, colour in [("train", "red"), ("test", "blue")]:  # classes that are called like sides
        make_photos(tmp_path / "photos" / name, {colour: 8})
    begin(tmp_path / "run", cache, source=tmp_path / "photos", layout="folders")
    moved = (tmp_path / "photos").rename(tmp_path / "moved")
    for _ in range(2):
        assert taken_up(tmp_path / "run", cache, source=moved).catalog.classes == ("test", "train")
        assert asked_of(tmp_path / "run").layout == "folders"
    pictures = [
        (noise(9000 + i, (200, 60, 60) if i % 2 else (60, 60, 200)), ["train", "test"][i % 2]) for i in range(6)
    ]
    assert taken_up(tmp_path / "run", cache, source=pictures, force=True).catalog.layout == "dataset"


def test_photos_of_an_archive_may_be_named_again_where_they_were_unpacked(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", photos))
    begin(tmp_path / "run", cache, source=packed, layout="archive")
    packed.unlink()
    assert taken_up(tmp_path / "run", cache, source=photos).catalog.layout == "folders"


def test_photos_of_a_run_that_cannot_be_looked_at_are_not_said_to_be_gone(
    left: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    photos.rename(tmp_path / "moved")
    photos.symlink_to(photos)
    with pytest.raises(SourceError) as caught:
        taken_up(left, cache)
    assert caught.value.what == f"{photos} cannot be listed."


@pytest.mark.parametrize("side", ["valid", "test"])
def test_held_out_photos_that_were_no_files_are_asked_for_where_a_run_is_taken_up(
    side: str, photos: Path, cache: Path, tmp_path: Path
) -> None:
    pictures = [(noise(9000 + i, (200, 60, 60) if i % 2 else (60, 60, 200)), ["blue", "red"][i % 2]) for i in range(6)]
    begin(tmp_path / "run", cache, source=photos, **{side: pictures})
    with pytest.raises(SourceError) as caught:
        taken_up(tmp_path / "run", cache, force=True)
    assert caught.value.what == f"The {side} photos of {tmp_path / 'run'} were no files."
    assert caught.value.fix == f"Pass them again beside resume=, as {side}=."
    assert len(taken_up(tmp_path / "run", cache, **{side: pictures}).catalog.on(side)) == 6


def test_sides_that_are_not_given_stay_where_a_run_is_taken_up_with_photos_elsewhere(
    left: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "moved")
    assert len(taken_up(left, cache, source=moved).catalog.on("test")) == 6
    (tmp_path / "test").rename(tmp_path / "moved too")
    assert len(taken_up(left, cache, test=tmp_path / "moved too").catalog.on("test")) == 6
    assert (asked_of(left).source, asked_of(left).test) == (str(moved), str(tmp_path / "moved too"))


@pytest.mark.parametrize(("preset", "said"), [("fast", "--recipe cannot be 'fast'"), ("auto", "has one recipe, and")])
def test_a_recipe_that_a_run_cannot_go_on_with_is_refused_also_when_forced(
    preset: str, said: str, left: Path, cache: Path
) -> None:
    for force in (False, True):
        with pytest.raises(ReheadError, match=said):
            taken_up(left, cache, preset=preset, force=force)


@pytest.fixture
def searching(photos: Path, cache: Path, tmp_path: Path) -> Path:
    """A search that was left when its photos were read."""
    settings = {"budget_s": 600.0, "lr": 0.1, "backbone_args": {"mean": (0.5, 0.4, 0.3)}}
    begin(tmp_path / "run", cache, source=photos, preset="auto", settings=settings)
    return tmp_path / "run"


def test_a_search_is_taken_up_by_the_command_that_began_it(searching: Path, cache: Path) -> None:
    kept = (searching / "tried.json").read_bytes()
    settings = {"budget_s": 600.0, "lr": 0.1, "backbone_args": {"mean": (0.5, 0.4, 0.3)}}
    for given in {"preset": "auto", "settings": settings}, {}:
        search = taken_up(searching, cache, **given).search
        assert search is not None
        assert search.budget_s == 600
        assert search.recipe("balanced") == Search.of(settings).recipe("balanced")
    assert (searching / "tried.json").read_bytes() == kept


def test_other_settings_for_a_search_are_named_as_they_are_typed_and_taken_when_forced(
    searching: Path, cache: Path
) -> None:
    settings = {"budget_s": 1800.0, "lr": 0.01, "mixup": 0.2}
    with pytest.raises(RunError) as caught:
        taken_up(searching, cache, preset="auto", settings=settings)
    assert caught.value.why == ("--budget is 600s, not 1800s; --lr is 0.1, not 0.01; --mixup was not given at first.")
    search = taken_up(searching, cache, settings=settings, force=True).search
    assert search is not None
    assert (search.budget_s, search.recipe("balanced").lr, search.recipe("balanced").mixup) == (1800, 0.01, 0.2)
    assert search.recipe("balanced").backbone_args == {"mean": (0.5, 0.4, 0.3)}
    assert load(searching / "recipe.toml") == search.recipe("quick")


def test_a_search_has_no_one_preset_when_it_is_taken_up(searching: Path, cache: Path) -> None:
    for preset, said in ("fast", "--recipe cannot be 'fast'"), ("balanced", "and --recipe balanced names one"):
        with pytest.raises(ReheadError, match=said):
            taken_up(searching, cache, preset=preset, force=True)


def test_a_search_that_is_taken_up_has_no_one_training_to_follow(searching: Path, cache: Path) -> None:
    pytest.importorskip("tensorboard")
    for preset in None, "auto":
        with pytest.raises(RecipeError, match="and --track follows one training") as error:
            taken_up(searching, cache, preset=preset, track=("tensorboard",))
        assert error.value.fix == "Leave --track out."


def test_a_search_that_is_taken_up_is_not_timed_for_gpus_of_nodes(searching: Path, cache: Path) -> None:
    with pytest.raises(RecipeError, match="--device cuda and --recipe auto do not go together") as error:
        taken_up(searching, cache, settings={"device": "cuda"}, ray="local", force=True)
    assert error.value.fix == "Leave --ray out, or start a new run."


def test_settings_that_later_tries_hear_are_not_called_without_effect(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    notes = Notes()
    with RunFolder(tmp_path / "run", force=False) as run:
        settings = {"lr": 0.0005, "epochs": 3, "mixup": 0.2}
        begun(wish(photos, preset="auto", settings=settings), run, cache, Log(notes), Clock())
    assert not [note for note in notes.notes if "has no effect" in note]


def test_photos_that_stop_a_job_are_counted_so_far_and_listed(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 100, "blue": 100})
    for i in range(150):
        path = photos / "blue" / f"broken{i}.png"
        noise(9000 + i, (60, 60, 200)).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(TooManyBad, match=r"of 350 photos cannot be read so far, which is more than 20%") as caught:
        rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    n = int(caught.value.what.split()[0])
    assert caught.value.why.endswith(f" ...; {cache / 'skipped.csv'} lists all {n}.")
    assert len((cache / "skipped.csv").read_text().splitlines()) == n + 1


def test_the_line_on_what_was_found_counts_each_thing_in_words(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "3.png").read_bytes())
    (photos / "red" / "empty.png").write_bytes(b"")
    rows = [
        f"{p.parent.name}/{p.name},{p.parent.name},{'' if p.stem == '1' else 'test' if p.stem < '2' else 'train'},{p.stem}"
        for p in sorted(photos.glob("*/*.png"))
    ]
    (photos / "all.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    told = Notes()
    tuned = rehead.tune(photos / "all.csv", cache=cache, out=tmp_path / "run", progress=told, report=False)
    line = next(note for note in told.notes if "to learn from" in note)
    assert "2 without a split count as train, 1 skipped, 1 copy counted once (skipped.csv will list all 2)" in line
    assert len((tuned.run / "skipped.csv").read_text().splitlines()) == 3
    assert tuned.verdict.side == "test"


def test_photos_that_give_way_to_a_named_test_folder_are_told(cache: Path, tmp_path: Path) -> None:
    for side, n in (("train", 10), ("test", 3)):
        make_photos(tmp_path / "data" / side, {"red": n, "blue": n})
    later = make_photos(tmp_path / "later", {"red": 2, "blue": 2})
    for i, path in enumerate(sorted(later.glob("*/*.png"))):
        noise(7000 + i, (200, 60, 60) if path.parent.name == "red" else (60, 60, 200)).save(path)
    told = Notes()
    tuned = rehead.tune(tmp_path / "data", test=later, cache=cache, out=tmp_path / "run", progress=told, report=False)
    assert "test is the photos' own side (6 photos) and left out, as --test names others" in told.notes
    assert tuned.verdict.n == 4


def test_a_group_on_both_sides_is_a_note_of_the_verdict(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    rows = [
        f"{p.parent.name}/{p.name},{p.parent.name},{'test' if i % 3 == 0 else 'train'},patient {i // 12}"
        for i, p in enumerate(sorted(photos.glob("*/*.png")))
    ]
    (photos / "all.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    told = Notes()
    tuned = rehead.tune(photos / "all.csv", cache=cache, out=tmp_path / "run", progress=told, report=False)
    assert tuned.verdict.notes == (
        "8 held-out photos of 2 groups that the training side has too: patient 0, patient 1.",
        "Probabilities are not calibrated, and no answer counts as unsure: 0 photos that the model did not learn from are too "
        "few to choose by, which takes 20.",
    )
    assert any(note.endswith("held out as given, 2 groups on both sides") for note in told.notes)


def test_a_split_that_was_drawn_is_called_so(photos: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.verdict.side == "drawn"
    assert " held out (drawn by rehead), 0 skipped." in (tuned.bundle / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "task", "lines"),
    [
        ({"lr": 0.1}, "classification", ["--lr has no effect: --train head with --head linear is solved."]),
        (
            {"head": "prototype", "class_weight": "balanced"},
            "classification",
            ["--class-weight has no effect: --train head with --head prototype is the class means."],
        ),
        ({"head": "linear", "class_weight": "balanced", "seed": 3}, "multilabel", []),
        ({"head": "mlp:64", "lr": 0.1, "epochs": 3}, "regression", []),
        ({"head": "mlp:64", "cutmix": 1}, "classification",
         ["--cutmix has no effect: --train head with --head mlp:64 learns by its own steps."]),
        ({"train": "last:2", "lr": 0.1, "precision": 0.99, "label_smoothing": 0.2}, "classification", []),
        ({"train": "last:2", "patience": 3}, "classification", []),
        ({"train": "last:2", "patience": 3, "watch": 0.0}, "classification",
         ["--patience has no effect: with --watch 0 no photo says whether an epoch was a gain."]),
        ({"train": "last:2", "lr": 0.1, "precision": 0.99, "label_smoothing": 0.2}, "multilabel",
         [f"{name} has no effect: it is for classes, not for several labels or numbers."
          for name in ("--precision", "--label-smoothing")]),
        ({"label_smoothing": 0.2, "lr": 0.1}, "regression",
         ["--label-smoothing has no effect: it is for classes, not for several labels or numbers.",
          "--lr has no effect: --train head with --head linear is solved."]),
    ],
)  # fmt: skip
def test_a_setting_that_nothing_listens_to_is_named(settings: dict[str, object], task: Task, lines: list[str]) -> None:
    assert unheard(Recipe.from_dict(settings), settings, task) == lines


@pytest.mark.long
def test_photos_are_counted_before_a_number_on_them_is_told(photos: Path, cache: Path, tmp_path: Path) -> None:
    told: list[str | int] = []

    class Events(Notes):
        def advance(self, n: int = 1) -> None:
            told.append(n)

        def status(self, text: str) -> None:
            told.append(text)

    rehead.tune(photos, cache=cache, out=tmp_path / "run", backbone_args={"mean": 0.4}, progress=Events(), report=False)
    first = next(i for i, event in enumerate(told) if isinstance(event, str) and "held-out accuracy" in event)
    n_seen = int(str(told[first]).split(" photo")[0].split()[-1])
    assert sum(event for event in told[:first][-5:] if isinstance(event, int)) >= n_seen


@pytest.mark.long
def test_a_setting_without_effect_is_told(rehead: Program, photos: Path) -> None:
    done = rehead("tune", photos, "--lr", "0.1", "--json")
    assert "--lr has no effect: --train head with --head linear is solved.\n" in done.stderr


def test_weights_are_kept_by_their_full_path_and_published_by_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept, _ = with_bundle({"weights": "sub/my.pth", "seed": 1}, None)
    assert kept == {"weights": str(tmp_path / "sub" / "my.pth"), "seed": 1}
    assert with_bundle({"weights": "~/my.pth"}, None)[0] == {"weights": str(Path.home() / "my.pth")}
    assert with_bundle({"seed": 1}, None)[0] == {"seed": 1}
    assert published(Recipe(weights=kept["weights"])).weights == "my.pth"


@pytest.mark.parametrize(
    "command", [["tune", "."], ["race", "."], ["cache"], ["backbones"], ["verify", "nowhere", "."]]
)
def test_a_cache_folder_without_a_name_is_no_folder(rehead: Program, command: list[str]) -> None:
    done = rehead(*command, "--cache", "")
    assert done.returncode == 2
    assert "The cache folder has an empty name." in done.stderr


def test_classes_that_only_held_out_photos_have_are_named(photos: Path, cache: Path, tmp_path: Path) -> None:
    other = make_photos(tmp_path / "other", {"green": 3, "red": 2})
    (other / "Red").mkdir()
    for i, path in enumerate([*sorted(other.glob("*/*.png")), other / "Red" / "0.png"]):
        noise(7000 + i, (60, 200, 60)).save(path)
    notes = Notes()
    rehead.tune(photos, valid=other, cache=cache, out=tmp_path / "run", progress=notes, report=False)
    named = "'Red' (1 photo), 'green' (3 photos). Other names are 'red' and 'Red': they count letter by letter"
    assert f"Left out, as no training photo has their classes: {named}" in notes.notes


def test_a_folder_named_as_a_side_among_class_folders_is_pointed_out(cache: Path, tmp_path: Path) -> None:
    place = make_photos(tmp_path / "photos", {"red": 8, "blue": 8, "green": 8})
    for name, before in ("Test", "green"), ("tests", "Test"):
        notes = Notes()
        (place / before).rename(place / name)
        rehead.tune(place, cache=cache, out=tmp_path / name, progress=notes, report=False)
        told = [
            note for note in notes.notes if note.startswith("Learned as a class, since class folders stand beside it")
        ]
        assert [note.partition("it: ")[2].partition(".")[0] for note in told] == ["'Test'"] * (name == "Test")
