"""The table of corrections of labels and numbers: of one task, gone with its last line, and read as people leave it."""

from __future__ import annotations

from pathlib import Path

import pytest
from little import GOLDEN, bundle, picture
from test_feedback import labels

from rehead.serving.feedback import Feedback
from rehead.serving.manifest import MANIFEST
from rehead.serving.models import Loaded, load_named
from rehead.serving.problems import Problem

RED, BLUE = picture((200, 30, 30)), picture((30, 30, 200))


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    """A model of several labels."""
    return load_named("shapes", GOLDEN / "bundle-2")


@pytest.fixture(scope="module")
def sizes() -> Loaded:
    """A model of a number."""
    return load_named("sizes", GOLDEN / "bundle-2-number")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model of classes."""
    return load_named("colours", bundle(tmp_path_factory.mktemp("made") / "colours"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "feedback").mkdir()
    return tmp_path / "feedback"


def refused(folder: Path, model: Loaded, label: str, *words: str) -> None:
    with pytest.raises(Problem) as caught:
        Feedback(folder).keep(model, BLUE, label)
    assert caught.value.status == 409
    for word in words:
        assert word in f"{caught.value.what} {caught.value.why} {caught.value.fix}"


def test_a_folder_holds_corrections_of_one_task(folder: Path, shapes: Loaded, sizes: Loaded, colours: Loaded) -> None:
    models = {"red": colours, "round;red": shapes, "1.5": sizes}
    feedback = Feedback(folder)
    for label, model in models.items():
        digests = {feedback.keep(model, RED, label).digest}
        for other, another in models.items():
            if another is not model:
                refused(folder, another, other, "another task", "--feedback")
        digests.add(feedback.keep(model, BLUE, label).digest)
        for digest in digests:
            feedback.forget(digest)  # and then it is free for any


@pytest.mark.parametrize("name", ["lost+found", ".git", "@eaDir", "System Volume Information"])
def test_folders_of_a_disk_are_no_corrections(folder: Path, shapes: Loaded, sizes: Loaded, name: str) -> None:
    (folder / name).mkdir()
    for model, label in ((shapes, "round;red"), (sizes, "2")):
        feedback = Feedback(folder)
        feedback.forget(feedback.keep(model, RED, label).digest)


def test_the_table_goes_with_its_last_line(folder: Path, sizes: Loaded, colours: Loaded) -> None:
    feedback = Feedback(folder)
    digest = feedback.keep(sizes, RED, "2").digest
    feedback.forget(digest)
    assert not (folder / MANIFEST).exists()
    (folder / MANIFEST).write_text("path,label\n")  # as services left it before
    feedback.keep(colours, RED, "red")
    assert labels(folder) == ["red"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\nphotos/mine.png,red;\n",
        'path;label\nphotos/mine.png;"red;"\n',
        "label\tpath\r\nred;\tphotos/mine.png\r\n\r\n",
        "Path , Label\nphotos/mine.png,red;\n,\n",
    ],
)
def test_a_table_that_was_edited_by_hand_is_read_as_tune_reads_it(folder: Path, shapes: Loaded, text: str) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "mine.png").write_bytes(BLUE)
    (folder / MANIFEST).write_bytes(text.encode())
    assert labels(folder) == ["red;"]
    kept = Feedback(folder).keep(shapes, RED, "round")
    assert (folder / MANIFEST).read_text() == f"path,label\nphotos/mine.png,red;\n{kept.path},round;\n"


def test_a_label_that_was_taken_out_by_hand_is_none(folder: Path, shapes: Loaded) -> None:
    feedback = Feedback(folder)
    first = feedback.keep(shapes, BLUE, "red")
    for line in ("", ","):
        (folder / MANIFEST).write_text(f"path,label\n{first.path}{line}\nphotos/other.png,round;\n")
        kept = feedback.keep(shapes, RED, "red")
        written = f"path,label\n{first.path},;\nphotos/other.png,round;\n{kept.path},red;\n"
        assert (folder / MANIFEST).read_text() == written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"path,labels\na.png,red;\n", "unknown column 'labels'"),
        (b"path\na.png\n", "label"),
        (b"a.png,red;\n", "unknown column"),
        (b"path,label,group\na.png,red;,1\n", "'group'"),
        (b"path,label\na,b.png,red;\n", "Line 2 has 3 cells for 2 columns"),
        (b"path,label\na.png,gr\xfcn;\n", "UTF-8"),
        (b"", "columns"),
    ],
)
def test_a_table_that_cannot_be_read_is_left_as_it_is_and_the_reason_is_said(
    folder: Path, shapes: Loaded, text: bytes, words: str
) -> None:
    (folder / MANIFEST).write_bytes(text)
    refused(folder, shapes, "red", words)
    assert (folder / MANIFEST).read_bytes() == text
    assert list(folder.rglob("*.png")) == []
