"""Corrections on disk: what is kept is read again by rehead's own readers, letter by letter; nothing else is ever written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections import Counter
from pathlib import Path

import filelock
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from little import GOLDEN, bundle, picture
from served import here

from rehead.data.folders import read_folder
from rehead.data.rows import Request
from rehead.data.targets import task_of
from rehead.errors import RunError
from rehead.serving.feedback import LOCK, Feedback, opened_feedback
from rehead.serving.models import Loaded, load_named
from rehead.serving.problems import Problem

PNG = {"Content-Type": "image/png"}
ODD = [
    "../up", "..", ".", "/", "C:\\x", "con", "NUL.txt", "a ", ".a", "a.", "train", "Thumbs.db", "e\u0301", "\u200b", "日本",
    "\U0001f469\u200d\U0001f52c", "a\0b",
]  # fmt: skip
RED, BLUE = picture((200, 30, 30)), picture((30, 30, 200))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """One of classes that some systems could not have as folders."""
    return load_named("little", bundle(tmp_path_factory.mktemp("made") / "little", ["red", "Who?", "a/b"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "feedback").mkdir()
    return tmp_path / "feedback"


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != LOCK
    )


def labels(folder: Path) -> list[str]:
    """As `rehead tune` reads the folder."""
    return sorted(row.label for row in read_folder(folder, Request(cache=folder)).rows)


@hypothesis.settings(max_examples=60)
@given(text=st.text(st.characters(codec="utf-8"), max_size=120) | st.sampled_from(ODD))
def test_a_label_is_read_again_as_it_was_said_or_refused(model: Loaded, text: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "feedback"
        folder.mkdir()
        feedback = Feedback(folder)
        feedback.keep(model, BLUE, "another")
        try:
            kept = feedback.keep(model, RED, text)
        except Problem as problem:
            found, wanted = [problem.status, len(files(folder))], [422, 1]
        else:
            found, wanted = labels(folder), sorted(["another", kept.label])
            assert kept.label.casefold() == unicodedata.normalize("NFC", text.strip()).casefold()
        assert found == wanted
        assert os.listdir(place) == ["feedback"]


@pytest.mark.parametrize("text", ["", " ", "..", "../a", "a/b", "a\\b", ".a", "a.", "con", "LPT1.x", "a:b", "x" * 101, "a\nb",
                                  "a\u202eb", "\u200d", "@eaDir", "a;b", "lost+found",
                                  "train", "Test", "val", "valid", "validation", "test1"])  # fmt: skip
def test_what_is_no_label_is_refused(model: Loaded, folder: Path, text: str) -> None:
    with pytest.raises(Problem) as refused:
        Feedback(folder).keep(model, RED, text)
    assert refused.value.status == 422
    assert files(folder) == []


@pytest.mark.parametrize("label", ["feedback.csv", "Feedback.CSV", "photos"])
def test_a_class_that_is_called_as_what_tables_need_is_refused(model: Loaded, folder: Path, label: str) -> None:
    with pytest.raises(Problem, match="cannot be the name of a folder: corrections of labels and numbers"):
        Feedback(folder).keep(model, RED, label)
    assert files(folder) == []
    assert Feedback(folder).keep(model, RED, "red").label == "red"


def test_a_class_that_is_a_word_of_a_split_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    vehicles = load_named("vehicles", bundle(tmp_path / "made", ["train", "plane", "ship"]))
    with pytest.raises(Problem, match="read as a part of a split"):
        Feedback(folder).keep(vehicles, RED, "train")
    assert Feedback(folder).keep(vehicles, RED, "training").label == "training"


def test_a_picture_of_more_pixels_than_the_service_takes_is_not_kept(model: Loaded, folder: Path) -> None:
    with pytest.raises(Problem, match="32 x 32 pixels"):
        Feedback(folder, pixels=1000).keep(model, RED, "bee")
    assert files(folder) == []


def test_a_class_may_be_what_a_new_name_may_not(model: Loaded, folder: Path) -> None:
    feedback = Feedback(folder)
    assert feedback.keep(model, RED, "Who?").label == "Who?"
    assert feedback.keep(model, RED, "RED").label == "red"
    with pytest.raises(Problem, match="cannot be the name of a folder"):
        feedback.keep(model, RED, "a/b")


def test_a_second_correction_takes_the_place_of_the_first(model: Loaded, folder: Path) -> None:
    feedback = Feedback(folder)
    first = feedback.keep(model, RED, "bee")
    second = feedback.keep(model, RED, "ant")
    assert first.digest == second.digest
    assert files(folder) == [second.path]
    assert (folder / second.path).read_bytes() == RED
    assert not (folder / "bee").exists()
    assert feedback.keep(model, RED, "ant") == second
    feedback.forget(second.digest)
    assert files(folder) == []
    with pytest.raises(Problem, match="No such picture"):
        feedback.forget(second.digest)


def test_a_picture_is_named_by_what_it_is(model: Loaded, folder: Path) -> None:
    feedback = Feedback(folder)
    for form, ending in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("BMP", "bmp")):
        assert feedback.keep(model, picture((9, 9, 99), form), "bee").path.endswith(f".{ending}")
    for data in (b"no picture", RED[:60], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        with pytest.raises(Problem, match="cannot be kept") as refused:
            feedback.keep(model, data, "bee")
        assert refused.value.status == 422
    assert len(files(folder)) == 5


def test_many_at_once_leave_each_picture_once(model: Loaded, folder: Path) -> None:
    photos = [picture((i, 2 * i, 3 * i)) for i in range(6)]
    feedbacks = [Feedback(folder), Feedback(folder)]  # two services on one folder

    def work(n: int) -> None:
        for i, photo in enumerate(photos):
            feedbacks[n % 2].keep(model, photo, f"class {(n + i) % 4}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digests = Counter(Path(path).stem for path in files(folder))
    assert len(digests) == 6
    assert set(digests.values()) == {1}
    assert {(folder / path).read_bytes() for path in files(folder)} == set(photos)


def test_there_is_a_bound_on_all_of_them(model: Loaded, folder: Path) -> None:
    feedback = Feedback(folder, max_bytes=len(RED) + 5)
    feedback.keep(model, RED, "bee")
    with pytest.raises(Problem, match="no room") as refused:
        feedback.keep(model, BLUE, "bee")
    assert refused.value.status == 507
    feedback.keep(model, RED, "ant")  # which takes no more
    with pytest.raises(Problem, match="no room"):
        Feedback(folder, free_bytes=1 << 60).keep(model, BLUE, "bee")
    assert len(files(folder)) == 1


def test_labels_and_numbers_are_a_table_that_says_what_they_are(folder: Path) -> None:
    shapes = load_named("shapes", GOLDEN / "bundle-2")
    feedback = Feedback(folder)
    first = feedback.keep(shapes, RED, "round;red")
    assert (first.label, labels(folder)) == ("red;round", ["red;round;"])
    feedback.keep(shapes, RED, "Red")
    feedback.keep(shapes, BLUE, "")
    assert task_of(labels(folder), "manifest") == "multilabel"
    assert labels(folder) == [";", "red;"]
    feedback.forget(first.digest)
    assert labels(folder) == [";"]
    with pytest.raises(Problem) as refused:
        feedback.keep(shapes, RED, "a/b;red")
    assert refused.value.status == 422


def test_numbers_are_numbers(folder: Path) -> None:
    sizes = load_named("sizes", GOLDEN / "bundle-2-number")
    feedback = Feedback(folder)
    feedback.keep(sizes, RED, " 12.50 ")
    feedback.keep(sizes, BLUE, "-3e2")
    assert labels(folder) == ["-300.0", "12.5"]
    for text in ("many", "nan", "inf", "1_000", "1,5"):
        with pytest.raises(Problem, match=f"The picture has the label '{text}', which is no number"):
            feedback.keep(sizes, RED, text)
    with pytest.raises(Problem, match="The picture has the label '1e39', which is too large a number"):
        feedback.keep(sizes, RED, "1e39")
    with pytest.raises(Problem, match="The picture has no label"):
        feedback.keep(sizes, RED, " ")


def test_a_folder_of_another_task_is_left_alone(model: Loaded, folder: Path) -> None:
    sizes = load_named("sizes", GOLDEN / "bundle-2-number")
    Feedback(folder).keep(sizes, RED, "1.5")
    with pytest.raises(Problem, match="another task") as refused:
        Feedback(folder).keep(model, RED, "bee")
    assert refused.value.status == 409


def test_each_of_several_models_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {name: bundle(tmp_path / name) for name in ("one", "two")}
    with here(folders, feedback=tmp_path / "feedback") as service:
        said = [service.ask("POST", f"/v1/feedback?label=bee&model={name}", RED, **PNG) for name in folders]
        assert [answer.status for answer in said] == [201, 201]
        assert len(files(tmp_path / "feedback" / "one")) == len(files(tmp_path / "feedback" / "two")) == 1


def test_it_is_asked_over_http(tmp_path: Path) -> None:
    made, folder = bundle(tmp_path / "little"), tmp_path / "deep" / "feedback"
    with here({"little": made}, feedback=folder) as service:
        assert service.get("/v1/model").json["feedback"] is True
        kept = service.ask("POST", "/v1/feedback?label=bee", RED, **PNG)
        assert kept.status == 201
        assert kept.json["path"] == f"bee/{kept.json['digest']}.png"
        form = service.ask(
            "POST", "/v1/feedback?label=bee", b"--x--", **{"Content-Type": "multipart/form-data; boundary=x"}
        )
        plain = service.ask("POST", "/v1/feedback?label=bee", RED, **{"Content-Type": "text/plain"})
        foreign = service.ask("POST", "/v1/feedback?label=bee", BLUE, **PNG, Origin="https://example.org")
        none = service.ask("POST", "/v1/feedback", BLUE, **PNG)
        bad = service.ask("POST", "/v1/feedback?label=bee", b"text", **PNG)
        up = service.ask("POST", "/v1/feedback?label=..%2Fup", BLUE, **PNG)
        statuses = [answer.status for answer in (form, plain, foreign, none, bad, up)]
        assert statuses == [400, 415, 403, 422, 422, 422]
        assert all(json.loads(answer.body)["error"]["what"] for answer in (plain, foreign, none, bad, up))
        assert files(folder) == [kept.json["path"]]
        assert service.ask("DELETE", "/v1/feedback/..%2F..%2Fx").status in (404, 405, 422)
        assert service.ask("DELETE", f"/v1/feedback/{kept.json['digest']}").status == 204
        assert service.ask("DELETE", f"/v1/feedback/{kept.json['digest']}").status == 404
        assert not any(re.search(r"\bbee\b", json.dumps(line)) for line in service.said)  # labels are nobody's business


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    with here({"little": bundle(tmp_path / "little")}) as service:
        assert service.get("/v1/model").json["feedback"] is False
        refused = service.ask("POST", "/v1/feedback?label=bee", RED, **PNG)
        assert refused.status == 404
        assert "--feedback" in refused.json["error"]["fix"]


def test_a_folder_that_cannot_be_written_is_told_at_the_start_and_later(tmp_path: Path) -> None:
    made = bundle(tmp_path / "little")
    (tmp_path / "file").write_text("")
    words = [
        sys.executable,
        "-m",
        "rehead",
        "serve",
        str(made),
        "--port",
        "0",
        "--feedback",
        str(tmp_path / "file" / "feedback"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Corrections cannot be kept in" in done.stderr
    folder = tmp_path / "feedback"
    with here({"little": made}, feedback=folder) as service:
        (folder / LOCK).unlink()
        folder.rmdir()
        folder.write_text("a file in its place")
        refused = service.ask("POST", "/v1/feedback?label=bee", RED, **PNG)
        assert refused.status == 500
        assert refused.json["error"]["what"] == "The correction cannot be kept."
        assert service.predict(RED).status == 200


def test_a_service_that_starts_leaves_the_lock_that_another_holds(model: Loaded, folder: Path) -> None:
    opened_feedback(folder, [model])
    with filelock.FileLock(folder / LOCK, timeout=0):
        opened_feedback(folder, [model])  # a file of its own in its place would be free
        with pytest.raises(filelock.Timeout), filelock.FileLock(folder / LOCK, timeout=0, is_singleton=False):
            pass


def test_no_other_service_waits_while_a_picture_is_decoded(model: Loaded, folder: Path) -> None:
    with filelock.FileLock(folder / LOCK, timeout=0), pytest.raises(Problem) as problem:
        Feedback(folder).keep(model, RED[:60], "red")
    assert problem.value.status == 422  # it was looked at before the folder was asked for


def test_one_picture_is_decoded_at_a_time(model: Loaded, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, waited = threading.Lock(), []

    def looked_at(*_: object) -> None:
        waited.append(alone.acquire(blocking=False))
        time.sleep(0.05)
        alone.release()

    monkeypatch.setattr("rehead.serving.feedback.check_pixels", looked_at)
    kept = Feedback(folder)
    threads = [threading.Thread(target=kept.keep, args=(model, one, "red")) for one in (RED, BLUE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited == [True, True]


def test_models_whose_folders_would_be_one_are_refused(tmp_path: Path) -> None:
    models = [load_named(name, bundle(tmp_path / f"{i}")) for i, name in enumerate(("a b", "a-b"))]
    with pytest.raises(Exception, match="would lie in one folder"):
        opened_feedback(tmp_path / "feedback", models)


@pytest.mark.parametrize("golden", ["bundle-3", "bundle-2", "bundle-2-number"])
def test_a_folder_of_one_model_is_not_taken_for_several_nor_the_other_way(folder: Path, golden: str) -> None:
    one, other = (load_named(name, GOLDEN / golden) for name in ("pets", "birds"))
    opened_feedback(folder, [one])["pets"].keep(one, RED, "3")
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match="Those of one model") as refused:
        opened_feedback(folder, [one, other])
    assert "into a folder in it" in refused.value.fix
    assert sorted(folder.rglob("*")) == before
    (folder / "pets").mkdir()
    for path in before:  # as it says
        if path.parent == folder and path.name != LOCK:
            path.rename(folder / "pets" / path.name)
    several = opened_feedback(folder, [one, other])
    assert {name: len(files(place.folder)) > 0 for name, place in several.items()} == {"pets": True, "birds": False}
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match="each model in a folder by itself: birds, pets") as refused:
        opened_feedback(folder, [one])
    assert refused.value.fix == f"Pass the folder of one: --feedback {folder}/birds"
    assert sorted(folder.rglob("*")) == before
    assert opened_feedback(folder, [one, other, load_named("fish", GOLDEN / golden)])
    assert opened_feedback(folder / "pets", [one])


def test_a_folder_that_was_opened_for_one_model_and_holds_nothing_takes_several(model: Loaded, folder: Path) -> None:
    opened_feedback(folder, [model])
    (folder / "@eaDir").mkdir()
    assert len(opened_feedback(folder, [model, load_named("other", GOLDEN / "bundle-3")])) == 2


@pytest.mark.parametrize("where", ["pets", "pets/bundle", "pets/bundle/kept/deep", "link"])
def test_a_folder_that_holds_a_served_bundle_or_lies_in_one_is_refused(tmp_path: Path, where: str) -> None:
    model = load_named("pets", bundle(tmp_path / "pets" / "bundle"))
    (tmp_path / "link").symlink_to(tmp_path / "pets" / "bundle")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="cannot be kept"):
        opened_feedback(tmp_path / where, [model])
    assert sorted(tmp_path.rglob("*")) == before
    assert opened_feedback(tmp_path / "pets" / "feedback", [model])
