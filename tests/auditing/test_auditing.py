"""The whole audit, on small photos: what it finds, what it says of odd input, and that it survives the way to JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from made import catalog_of, facts_with, shapes
from PIL import Image

import rehead
from rehead.auditing.audit import audit_photos
from rehead.auditing.findings import Audit
from rehead.auditing.plan import plan_of
from rehead.bundle_facts import Task
from rehead.cli.findings import show_audit

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos; an exact copy, a near one of another label, a blank one, one that is cut off and one that is empty."""
    photos = make_photos(tmp_path_factory.mktemp("audit") / "photos", {"red": 20, "blue": 20})
    (photos / "red" / "twin.png").write_bytes((photos / "red" / "0.png").read_bytes())
    shapes(5).save(photos / "red" / "shapes.png")
    shapes(5).resize((200, 150)).save(photos / "blue" / "near.jpg", quality=60)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(photos / "red" / "blank.png")
    (photos / "blue" / "cut.png").write_bytes((photos / "blue" / "3.png").read_bytes()[:900])
    (photos / "blue" / "empty.png").touch()
    return photos


@pytest.fixture(scope="module")
def found(faulty: Path, cache: Path) -> Audit:
    return rehead.audit(faulty, cache=cache)


def test_faults_are_found(found: Audit) -> None:
    assert {group.paths for group in found.copies} == {
        ("red/0.png", "red/twin.png"),
        ("blue/near.jpg", "red/shapes.png"),
    }
    assert {broken.path for broken in found.broken} == {"blue/cut.png", "blue/empty.png"}
    assert [(odd.path, odd.fault) for odd in found.pictures if odd.fault == "blank"] == [("red/blank.png", "blank")]
    assert [shortcut.source for shortcut in found.shortcuts] == ["file", "border"]
    assert (found.n, found.backbone) == (43, "efficientnet_lite0")


def test_plain_photos_among_plain_ones_are_not_blank() -> None:
    """As of X-rays, fog or a surface without faults."""
    contrast = [2.5] * 39 + [0.2]
    audit = audit_photos(catalog_of("ab" * 20), range(40), np.eye(40, dtype=np.float32), backbone="b",
                         facts=facts_with(40, contrast=contrast))  # fmt: skip
    assert [odd.path for odd in audit.pictures if odd.fault == "blank"] == ["39.jpg"]


def test_near_copies_are_on_one_side_where_the_split_is_ours(found: Audit) -> None:
    assert all(len(set(group.sides)) == 1 and not group.is_leak for group in found.copies)
    assert found.leaks.n == 0
    assert (found.n_judged, found.not_looked_for) == (found.n, ())


def test_an_audit_survives_the_way_to_json(found: Audit) -> None:
    assert Audit.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.slow
def test_a_second_audit_finds_the_same_also_where_photos_are_gone(found: Audit, faulty: Path, cache: Path) -> None:
    gone = faulty / "red" / "19.png"
    data = gone.read_bytes()
    try:
        again = rehead.audit(faulty, cache=cache)
        gone.unlink()
        without = rehead.audit(faulty, cache=cache)
    finally:
        gone.write_bytes(data)
    assert again == found
    assert without.n == found.n - 1


def test_leaks_of_a_given_split_are_counted_and_the_accuracy_is_given_without_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    n = 40
    sides = ["train"] * 20 + ["valid"] * 20
    x = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    x[20:24] = x[:4]
    hashes = [i << 60 | (1 << i) - 1 << 100 for i in range(n)]
    hashes = [int(h) for h in np.random.default_rng(1).integers(0, 2**62, n)]
    hashes = [h << 128 | h for h in hashes]
    hashes[20:24] = hashes[:4]
    labels = ["a", "b"] * 20
    logits = np.full((n, 2), np.nan, np.float32)
    logits[20:] = [[1, 0], [0, 1]] * 10
    logits[30] = [0, 1]
    audit = audit_photos(
        catalog_of(labels, sides, ours=False),
        list(range(n)),
        x,
        backbone="b",
        facts=facts_with(n, hash=hashes),
        held_out=logits,
    )
    assert audit.leaks.n == 4
    assert audit.leaks.accuracy is not None
    assert audit.leaks.without is not None
    assert (audit.leaks.accuracy.value, audit.leaks.accuracy.n) == (0.95, 20)
    assert (audit.leaks.without.value, audit.leaks.without.n) == (15 / 16, 16)
    assert all(group.is_leak for group in audit.copies)
    hashes[20:] = hashes[:20]
    all_leak = audit_photos(
        catalog_of(labels, sides, ours=False), list(range(n)), x, backbone="b", facts=facts_with(n, hash=hashes),
        held_out=logits,
    )  # fmt: skip
    assert (all_leak.leaks.n, all_leak.leaks.without) == (20, None)
    show_audit(all_leak)
    assert "Right on 95.0% (76.4% to 99.1%) with them, and none is left without." in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_copies_on_a_side_that_is_not_judged_are_no_leaks(task: Task) -> None:
    sides = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4
    catalog = replace(catalog_of(["1", "2"] * 8, sides, ours=False), task=task)
    twins = [replace(catalog.photos[8 + i], digest=catalog.photos[i].digest) for i in range(4)]
    photos = (*catalog.photos[:8], *twins, *catalog.photos[12:])
    catalog = replace(catalog, photos=photos, same=tuple((photos[i], photos[8 + i]) for i in range(4)))
    used = [*range(8), *range(12, 16)]
    logits = np.array([[np.nan] * 2] * 8 + [[1, 0], [0, 1]] * 2, np.float32)
    of_run = audit_photos(catalog, used, np.eye(12), backbone="b", facts={}, held_out=logits)
    assert (of_run.leaks.n, [group.is_leak for group in of_run.copies]) == (0, [False] * 4)
    whole = audit_photos(catalog, range(16), np.eye(16), backbone="b", facts={})
    assert (whole.leaks.n, [group.is_leak for group in whole.copies]) == (4, [True] * 4)


def test_only_what_cannot_be_read_is_a_broken_file(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    held = make_photos(tmp_path / "held", {"red": 2, "blue": 2})
    (photos / "red" / "cut.png").touch()
    (photos / "loose.png").write_bytes((photos / "red" / "0.png").read_bytes())
    split = tmp_path / "split"
    for side in ("train", "test"):
        make_photos(split / side, {"red": 3, "blue": 3})
    (split / "train" / "red" / "cut.png").touch()
    loose, own = rehead.audit(photos, cache=cache), rehead.audit(split, test=held, cache=cache)
    assert [broken.path for broken in loose.broken] == ["red/cut.png"]
    assert "Not looked at: loose.png lies outside the class folders." in loose.notes
    assert [broken.path for broken in own.broken] == ["train/red/cut.png"]
    said = "Not looked at: test is the photos' own side (6 photos) and left out, as --test names others."
    assert said in own.notes
    assert [line.path for line in plan_of(own) if line.action == "remove" and not line.label] == ["train/red/cut.png"]


@pytest.mark.parametrize("labels", ["", "a", "aaa", "ab"])
def test_few_photos_or_one_label_are_looked_at_as_far_as_they_go(
    labels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    n = len(labels)
    logits = np.full((n, len(set(labels))), np.nan, np.float32)
    audit = audit_photos(
        catalog_of(labels), list(range(n)), np.ones((n, 4), np.float32), backbone="b", facts={}, apart=logits
    )
    assert (audit.n, audit.labels, audit.shortcuts, audit.outliers) == (n, (), (), ())
    assert (audit.n_judged, audit.not_looked_for) == (0, ("wrong labels", "shortcuts"))
    assert audit.notes
    show_audit(audit)
    said = " ".join(capsys.readouterr().out.split())
    assert "looked at: nothing is wrong; wrong labels and shortcuts were not looked for" in said


def test_what_is_not_looked_for_has_its_reason() -> None:
    n = 40
    logits = np.full((n, 2), np.nan, np.float32)
    logits[:6] = [[1, 0], [0, 1]] * 3
    hashes = [int(h) << 128 | int(h) for h in np.random.default_rng(1).integers(0, 2**62, n)]
    one, features, facts = catalog_of(["a", "b"] * 20), np.eye(n, dtype=np.float32), facts_with(n, hash=hashes)
    few = audit_photos(one, range(n), features, backbone="b", facts={i: facts[i] for i in range(20)}, apart=logits)
    assert few.not_looked_for == ("wrong labels", "shortcuts")
    assert [note.partition(":")[0] for note in few.notes[:2]] == [
        "Wrong labels were not looked for", "Shortcuts were not looked for",
    ]  # fmt: skip
    logits[:] = [[9, 0], [0, 9]] * 20
    whole = audit_photos(one, range(n), features, backbone="b", facts=facts, apart=logits)
    assert (whole.n_judged, whole.not_looked_for) == (n, ())


def test_a_class_that_is_a_near_copy_of_half_of_another_does_not_end_the_audit() -> None:
    n = 44
    hashes = [int(h) << 128 | int(h) for h in np.random.default_rng(1).integers(0, 2**62, n)]
    hashes[n - 1] = hashes[n - 2]
    catalog = catalog_of([*"cd" * (n // 2 - 2), "c", "a", "a", "b"])
    facts = facts_with(n, hash=hashes, quality=[80 + i % 2 for i in range(n)])
    audit = audit_photos(catalog, list(range(n)), np.ones((n, 4), np.float32), backbone="b", facts=facts)
    assert [shortcut.accuracy.n for shortcut in audit.shortcuts] == [n - 3, n - 3]


@pytest.mark.parametrize(("counts", "note"), [({"red": 1}, "One photo has no others to be compared with."), (
    {"red": 12}, "All photos have one label: wrong labels and shortcuts cannot be looked for.")])  # fmt: skip
def test_a_single_photo_and_a_single_class_are_audited(
    counts: dict[str, int], note: str, cache: Path, tmp_path: Path
) -> None:
    audit = rehead.audit(make_photos(tmp_path / "photos", counts), cache=cache)
    assert audit.n == sum(counts.values())
    assert note in audit.notes


def test_several_labels_a_photo_and_numbers_are_audited_but_for_labels(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    paths = sorted(photos.glob("*/*.png"))
    for name, labels in (("tags", ["x;y", "x", "y"] * 4), ("ages", [f"{i}.5" for i in range(12)])):
        rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *rows]))
        audit = rehead.audit(tmp_path / f"{name}.csv", cache=cache)
        assert (audit.n, audit.shortcuts, audit.labels) == (12, (), ())
        assert "Wrong labels and shortcuts are looked for where a photo has one class." in audit.notes


@pytest.mark.slow
def test_the_program_writes_a_plan_and_follows_it(rehead: Program, faulty: Path, tmp_path: Path) -> None:
    shown = rehead("audit", faulty, "--fix", "plan.csv")
    assert shown.returncode == 0, shown.stderr
    assert "Copies: one picture in several files" in shown.stdout
    assert "to remove" in shown.stdout
    assert rehead("audit", faulty, "--fix", "plan.csv").returncode == 2
    done = rehead("audit", faulty, "--apply", "plan.csv", "--out", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Manifest  new.csv" in done.stdout
    manifest = (tmp_path / "new.csv").read_text()
    assert "red/1.png" in manifest
    assert not any(name in manifest for name in ("twin.png", "blank.png", "cut.png", "empty.png"))


def test_options_that_contradict_each_other_are_told(rehead: Program, tmp_path: Path) -> None:
    noise(0, (9, 9, 9)).save(tmp_path / "a.png")
    assert "--fix writes a plan" in rehead("audit", ".", "--fix", "a.csv", "--apply", "b.csv").stderr
    assert "--out names the manifest" in rehead("audit", ".", "--out", "a.csv").stderr
    assert "does not end in .csv" in rehead("audit", ".", "--fix", "a.png").stderr


@pytest.mark.long
def test_what_is_to_be_typed_next_repeats_what_was_typed(rehead: Program, cache: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    make_photos(tmp_path / "held out", {"red": 2, "blue": 2})
    typed = ["--layout", "folders", "--valid", "held out", "--cache", str(cache), "--seed", "3", "--limit", "14"]
    typed_first = "rehead audit photos --layout folders --valid 'held out'"
    shown = rehead("audit", "photos", *typed).stdout.splitlines()[-1]
    assert shown == f"Go on     {typed_first} --cache {cache} --limit 14 --seed 3 --fix plan.csv"
    shown = rehead("audit", "photos", *typed, "--fix", "plan.csv").stdout.splitlines()[-1]
    assert shown == f"Go on     edit it, then: {typed_first} --cache {cache} --apply plan.csv"


def test_numbers_that_are_names_are_audited_and_relabelled_as_classes(rehead: Program, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {"red": 8, "blue": 8})
    rows = [f"photos/{c}/{i}.png,{n}" for c, n in (("red", "1.5"), ("blue", "2.5")) for i in range(8)]
    (tmp_path / "given.csv").write_text("\n".join(["path,label", *rows]))
    asked = ("audit", "given.csv", "--task", "classification")
    shown = rehead(*asked, "--json")
    assert json.loads(shown.stdout)["n_judged"] == 16, shown.stderr
    (tmp_path / "plan.csv").write_text("path,action,new_label\nphotos/red/0.png,relabel,2.5\n")
    done = rehead(*asked, "--apply", "plan.csv", "--out", "new.csv")
    assert done.stdout.splitlines()[-1].endswith("rehead tune new.csv --task classification"), done.stderr
    assert "photos/red/0.png,2.5,," in (tmp_path / "new.csv").read_text().splitlines()
    assert rehead("audit", "given.csv", "--task", "clas").returncode == 2
    assert rehead("audit", "given.csv", "--task", "clas", "--apply", "plan.csv", "--out", "other.csv").returncode == 2
