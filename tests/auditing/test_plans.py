"""A plan is a table that people edit; what it asks is followed or said, and no photo is ever lost or changed."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from subprocess import run

import pytest
from bucket import Store, in_memory
from conftest import make_photos

from rehead.auditing.apply import Applied, apply_plan
from rehead.auditing.findings import Audit, Broken, CopyGroup, LabelIssue, OddPicture, Outlier
from rehead.auditing.plan import COLUMNS, Line, as_csv, plan_of, read_plan
from rehead.cli.findings import show_applied
from rehead.data.rows import Skip
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import RunError, SourceError

FOUND = Audit(
    n=9,
    backbone="efficientnet_lite0",
    copies=(
        CopyGroup(("red/0.png", "red/1.png"), ("valid", "train"), ("red", "red"), False, 3, True, (0, 1)),
        CopyGroup(("red/2.png", "blue/2.png"), ("train", "train"), ("red", "blue"), True, 0, False, (0, 0)),
    ),
    labels=(
        LabelIssue("red/3.png", "train", "red", 0.01, "blue", 0.99),
        LabelIssue("red/4.png", "train", "red", 0.3, "blue", 0.7),
    ),
    outliers=(Outlier("red/3.png", "train", "red", 0.9, 0.3),),
    pictures=(OddPicture("blue/1.png", "valid", "blue", "blank", "its brightness varies by 0.1 of 255"),),
    broken=(Broken("blue/no.png", "is empty (0 bytes)"),),
)


def test_what_is_certain_is_done_and_the_rest_is_kept_to_be_seen() -> None:
    lines = {line.path: line for line in plan_of(FOUND)}
    actions = {path: line.action for path, line in lines.items()}
    assert actions == {
        "red/0.png": "remove", "blue/1.png": "remove", "blue/no.png": "remove", "red/3.png": "relabel",
        "red/4.png": "keep", "red/2.png": "keep", "blue/2.png": "keep",
    }  # fmt: skip
    assert lines["red/3.png"].new_label == "blue"
    assert lines["red/3.png"].reason.endswith("unlike all others: distance 0.90, usually 0.30")
    assert lines["red/0.png"].reason == "a near copy of red/1.png"
    assert lines["blue/2.png"].reason == "the same picture is labelled red (red/2.png), blue (blue/2.png)"


@pytest.mark.parametrize(
    ("bytes_of", "flagged", "kept"),
    [
        ((0, 0, 0), "2.png", ("2.png", "relabel", "blue")),  # each has the bytes whose label is wrong
        ((0, 1, 1), "2.png", ("0.png", None, None)),  # a near copy of which the models are not sure
        ((0, 0, 1), "1.png", ("2.png", None, None)),
        ((0, 1, 2), "0.png", ("1.png", None, None)),
    ],
)
def test_of_copies_no_twin_stays_of_one_whose_label_is_likely_wrong(
    bytes_of: tuple[int, ...], flagged: str, kept: tuple[str, str | None, str | None]
) -> None:
    paths, is_exact = ("0.png", "1.png", "2.png"), bytes_of == (0, 0, 0)
    group = CopyGroup(paths, ("train",) * 3, ("red",) * 3, is_exact, 0, False, bytes_of)
    issue = LabelIssue(flagged, "train", "red", 0.01, "blue", 0.99)
    lines = {line.path: line for line in plan_of(Audit(n=3, backbone="b", copies=(group,), labels=(issue,)))}
    assert {path for path in paths if path not in lines or lines[path].action != "remove"} == {kept[0]}
    line = lines.get(kept[0])
    assert ((line.action, line.new_label) if line else (None, None)) == kept[1:]


def test_copies_with_several_labels_are_left_to_a_person_who_sees_what_the_models_say() -> None:
    paths, labels = ("red/0.png", "blue/0.jpg"), ("red", "blue")
    group = CopyGroup(paths, ("train",) * 2, labels, False, 4, False, (0, 1))
    issue = LabelIssue("red/0.png", "train", "red", 0.01, "blue", 0.99)
    red, blue = plan_of(Audit(n=2, backbone="b", copies=(group,), labels=(issue,)))
    assert (red.action, red.new_label, blue.action, blue.new_label) == ("keep", "blue", "keep", "")
    assert red.reason == (
        "the same picture is labelled red (red/0.png), blue (blue/0.jpg); blue with 0.990, red with 0.010"
    )


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines = [
        *plan_of(FOUND),
        Line('odd, "name"\udcff.png', "a", "train", "keep", "", "why\nnot"),
        Line("1.png\r", "a", "train", "keep", "", ""),
    ]
    path = tmp_path / "plan.csv"
    path.write_bytes(as_csv(lines).encode("utf-8", "surrogateescape"))
    assert read_plan(path) == lines
    excel = as_csv(plan_of(FOUND)).replace(",", ";").replace("keep", "Keep ")
    path.write_text(excel, encoding="utf-8-sig")
    assert [line.action for line in read_plan(path)] == [line.action for line in plan_of(FOUND)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,label\na.png,x\n", "has no column 'action', so it is no plan."),
        ("path,action\na.png,removed\n", "has the action 'removed'."),
        ("path,action,new_label\na.png,relabel,\n", "relabels a.png, but not as what."),
        ("path,action\n,keep\n", "names no photo."),
        ("path,action\na.png,keep\na.png,remove\n", "asks two things of a.png."),
        (f"path,action,reason\na.png,keep,{'x' * 200_000}\n", "is not a CSV file."),
    ],
)
def test_what_cannot_be_meant_is_an_error(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(SourceError) as caught:
        read_plan(tmp_path / "plan.csv")
    assert caught.value.what.endswith(what)
    assert caught.value.fix


@pytest.mark.parametrize("column", ["label", "new_label"])
def test_a_plan_that_was_saved_in_windows_1252_makes_no_new_classes(column: str, tmp_path: Path) -> None:
    cells = {"label": "Wolf", "new_label": "Wolf", column: "Löwe"}
    path = tmp_path / "my plan.csv"
    lines = ["path,label,action,new_label", f"Käfer.png,{cells['label']},relabel,{cells['new_label']}"]
    path.write_text("\n".join(lines), encoding="cp1252")
    with pytest.raises(SourceError) as caught:
        read_plan(path)
    assert caught.value.what == f"Line 2 of {path} has the {column} 'L\\xf6we', which is not UTF-8."
    run(caught.value.fix.partition("name that: ")[2], shell=True, check=True)
    (line,) = read_plan(tmp_path / "my plan-utf8.csv")
    assert (line.path, line.label, line.new_label) == ("Käfer.png", cells["label"], cells["new_label"])


def test_a_plan_of_many_copies_with_several_labels_stays_short_and_is_read(tmp_path: Path) -> None:
    n = 5_000
    paths, labels = tuple(f"{i}.png" for i in range(n)), tuple(f"class {i % 1000}" for i in range(n))
    group = CopyGroup(paths, ("train",) * n, labels, True, 0, False, (0,) * n)
    plan = plan_of(Audit(n=n, backbone="b", copies=(group,)))
    assert len(plan) == n
    assert plan[-1].reason == (
        "the same picture is labelled class 0 (0.png), class 1 (1.png), class 2 (2.png), class 3 (3.png), class 4 (4.png) "
        "and 995 more"
    )
    (tmp_path / "plan.csv").write_text(as_csv(plan))
    assert (tmp_path / "plan.csv").stat().st_size < 200 * n
    assert read_plan(tmp_path / "plan.csv") == plan


def test_a_manifest_has_the_photos_as_the_plan_has_them(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 5, "blue": 5})
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    (tmp_path / "plan.csv").write_text(
        "path,label,side,action,new_label,reason\n"
        "red/0.png,red,,remove,,\nred/1.png,red,,relabel,blue,\nred/2.png,red,,keep,,\nred/3.png,blue,,remove,,\n"
        "red/77.png,red,,relabel,blue,\nblue/0.png,,,relabel,gren,\n"
    )
    for out in (tmp_path / "new.csv", tmp_path / "elsewhere" / "new.csv"):
        applied = apply_plan(photos, tmp_path / "plan.csv", out, cache=tmp_path / "cache")
        assert (applied.n, applied.n_removed, applied.n_relabelled, applied.new_labels) == (9, 1, 2, ("gren",))
        assert [(skip.path, skip.reason) for skip in applied.skipped] == [
            ("red/3.png", "is labelled red now, not blue: it stays as it is"),
            ("red/77.png", "is not among these photos"),
        ]
        again = open_source(out, cache=tmp_path)
        labels = {Path(row.path).parts[-2] + "/" + Path(row.path).name: row.label for row in again.rows}
        assert labels["red/1.png"] == "blue"
        assert "red/0.png" not in labels
        assert (len(again.rows), again.skipped) == (9, [])
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before
    assert (tmp_path / "new.csv").read_text().splitlines()[:2] == ["path,label,split,group", "photos/blue/0.png,gren,,"]


def test_a_line_of_what_was_passed_over_is_told_with_the_reason(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    (photos / "loose.png").write_bytes((photos / "red" / "0.png").read_bytes())
    (tmp_path / "plan.csv").write_text("path,label,side,action,new_label,reason\nloose.png,,,relabel,red,\n")
    applied = apply_plan(photos, tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    assert [(skip.path, skip.reason) for skip in applied.skipped] == [("loose.png", "lies outside the class folders")]


def test_a_given_split_and_groups_stay_and_ours_is_drawn_again(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    rows = [
        f"photos/{c}/{i}.png,{c},{'valid' if i % 2 else 'train'},{c}{i // 2}" for c in ("red", "blue") for i in range(6)
    ]
    (tmp_path / "given.csv").write_text("\n".join(["path,label,split,group", *rows]))
    (tmp_path / "plan.csv").write_text(",".join(COLUMNS) + "\nphotos/red/0.png,red,train,remove,,\n")
    apply_plan(tmp_path / "given.csv", tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    assert set((tmp_path / "new.csv").read_text().splitlines()[1:]) == set(rows[1:])
    apply_plan(tmp_path / "photos", tmp_path / "plan.csv", tmp_path / "ours.csv", cache=tmp_path / "cache")
    sides = []
    for source in (tmp_path / "photos", tmp_path / "ours.csv"):
        catalog = scan(open_source(source, cache=tmp_path), seed=1, valid_fraction=0.4)
        sides.append({photo.digest: photo.side for photo in catalog.photos})
    assert sides[0] == sides[1]


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    (tmp_path / "plan.csv").write_text("path,action\nred/0.png,remove\n")
    (tmp_path / "new.csv").write_text("mine")
    for out, what in ((tmp_path / "new.csv", "is there already."), (photos / "red" / "0.png", "does not end in .csv.")):
        with pytest.raises(RunError) as caught:
            apply_plan(photos, tmp_path / "plan.csv", out, cache=tmp_path / "cache")
        assert caught.value.what.endswith(what)
    assert (tmp_path / "new.csv").read_text() == "mine"
    apply_plan(photos, tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache", force=True)
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 4


def test_photos_that_no_manifest_could_name_are_to_be_files_first(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", photos)
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "train-0000.tar", "w") as shard:
        for label in ("red", "blue"):
            (tmp_path / "label").write_text(label)
            shard.add(photos / label / "0.png", f"{label}.png")
            shard.add(tmp_path / "label", f"{label}.cls")
    (tmp_path / "plan.csv").write_text("path,action\nred/0.png,remove\n")
    pairs = [((photos / label / "0.png").read_bytes(), label) for label in ("red", "blue")]
    other = make_photos(tmp_path / "other", {"red": 3, "blue": 3})
    for source, fix in ((archive, "Unpack the archive"), (shards, "Write the photos of"), (pairs, "Write them into")):
        for photos, test in ((source, None), (other, source), (source, other)):
            with pytest.raises(SourceError, match="cannot be named in a manifest") as caught:
                apply_plan(photos, tmp_path / "plan.csv", tmp_path / "new.csv", test=test, cache=tmp_path / "cache")
            assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize("kind", ["a bucket", "a table of addresses"])
def test_photos_at_addresses_are_named_by_these(kind: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    address = in_memory(photos)
    (tmp_path / "table.csv").write_text(
        "".join(
            ["path,label\n", *(f"{address}/{label}/{i}.png,{label}\n" for label in ("red", "blue") for i in range(3))]
        )
    )
    (tmp_path / "plan.csv").write_text(
        f"path,action,new_label\n{'' if kind == 'a bucket' else f'{address}/'}red/0.png,relabel,blue\n"
    )
    source = address if kind == "a bucket" else tmp_path / "table.csv"
    apply_plan(source, tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    again = open_source(tmp_path / "new.csv", cache=tmp_path)
    assert {(row.path, row.label) for row in again.rows} == {
        (f"{address}/{label}/{i}.png", "blue" if i == 0 else label) for label in ("red", "blue") for i in range(3)
    }
    assert {again.read(row) for row in again.rows} == {path.read_bytes() for path in photos.rglob("*.png")}


@pytest.mark.parametrize("is_far", [False, True])
def test_held_out_photos_may_be_elsewhere_than_those_that_are_learned_from(is_far: bool, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    later = make_photos(tmp_path / "later", {"blue": 2, "red": 2})  # other pictures
    (tmp_path / "plan.csv").write_text("path,action\nred/0.png,remove\n")
    source, test = (photos, in_memory(later)) if is_far else (in_memory(photos), later)
    apply_plan(source, tmp_path / "plan.csv", tmp_path / "new.csv", test=test, cache=tmp_path / "cache")
    again = open_source(tmp_path / "new.csv", cache=tmp_path)
    learned, held_out = (
        {path.read_bytes() for path in folder.rglob("*.png")} - {(photos / "red" / "0.png").read_bytes()}
        for folder in (photos, later)
    )
    for side, wanted in (("train", learned), ("test", held_out)):
        assert {again.read(row) for row in again.rows if row.side == side} == wanted


def test_a_bucket_whose_address_has_options_is_to_be_named_without_them(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    store.put("audited", photos, "photos/")
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    address = f"s3://audited/photos?scheme=http&endpoint_override={store.endpoint.removeprefix('http://')}"
    (tmp_path / "plan.csv").write_text("path,action\nred/0.png,remove\n")
    with pytest.raises(SourceError, match="cannot be named in a manifest") as caught:
        apply_plan(address, tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    assert "AWS_ENDPOINT_URL" in caught.value.fix
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    apply_plan("s3://audited/photos", tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    again = open_source(tmp_path / "new.csv", cache=tmp_path)
    assert len({again.read(row) for row in again.rows}) == 5


@pytest.mark.parametrize(
    ("names", "task"), [(("red", "blue"), None), (("2.5", "3.5"), "classification"), (("a;b", "b"), "classification")]
)
def test_labels_that_a_manifest_would_have_taken_for_others_are_told_with_the_command(
    names: tuple[str, str], task: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    for old, new in zip(("red", "blue"), names, strict=True):
        (photos / old).rename(photos / new)
    (tmp_path / "plan.csv").write_text(f"path,action,new_label\n{names[0]}/0.png,relabel,{names[1]}\n")
    applied = apply_plan(photos, tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    assert (applied.n_relabelled, applied.task) == (1, task)
    again = scan(
        open_source(tmp_path / "new.csv", cache=tmp_path),
        seed=0,
        valid_fraction=0.4,
        task=task or "auto",
        is_learned=False,
    )
    assert (again.task, again.classes) == ("classification", tuple(sorted(names)))
    show_applied(applied, ["--cache", "there"])
    command = f"rehead tune {tmp_path / 'new.csv'}" + (f" --task {task}" if task else "") + " --cache there"
    assert capsys.readouterr().out.splitlines()[-1] == f"Go on     {command}"


@pytest.mark.parametrize(("n", "said"), [(11, "! and 1 more line of the plan"), (12, "! and 2 more lines of the plan")])
def test_lines_of_a_plan_that_are_not_shown_are_counted(
    n: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = tuple(Skip(f"{i}.png", "is not there any more") for i in range(n))
    show_applied(Applied(tmp_path / "new.csv", 4, 0, 0, skipped, (), None), [])
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("labels", "new", "why"),
    [
        (["red", "blue"], "red;blue", "in the plan has the label 'red;blue', which is several: it stays as it is"),
        (["1.5", "2.5"], "old", "in the plan has the label 'old', which is no number: it stays as it is"),
        (["red", "red;blue"], " round; blue ", None),
    ],
)
def test_a_new_label_that_is_none_of_these_photos_kind_is_not_given(
    labels: list[str], new: str, why: str | None, tmp_path: Path
) -> None:
    make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    rows = [f"photos/{c}/{i}.png,{label}" for c, label in zip(("red", "blue"), labels, strict=True) for i in range(4)]
    (tmp_path / "given.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "plan.csv").write_text(f"path,action,new_label\nphotos/red/0.png,relabel,{new}\n")
    applied = apply_plan(tmp_path / "given.csv", tmp_path / "plan.csv", tmp_path / "new.csv", cache=tmp_path / "cache")
    assert [skip.reason for skip in applied.skipped] == ([] if why is None else [why])
    assert applied.n_relabelled == (why is None)
    given = labels[0] if why is not None else "blue;round"
    assert f"photos/red/0.png,{given},," in (tmp_path / "new.csv").read_text().splitlines()
    assert applied.task is None
