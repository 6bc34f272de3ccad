"""The command line on odd input and odd wishes: what it says, what it leaves behind, and with which exit code."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, make_photos, noise
from extracting import N_MANY, begun, extracting
from PIL import Image

from rehead import bundle as bundles

Program = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on red and blue photos."""
    import rehead

    photos = make_photos(tmp_path_factory.mktemp("photos") / "photos", {"red": 20, "blue": 20})
    return rehead.tune(photos, cache=cache, out=tmp_path_factory.mktemp("run") / "run", report=False).run


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def manifest(folder: Path, header: str, extra: str = "", *, mark: str = "") -> Path:
    photos = make_photos(folder / "photos", {"red": 20, "blue": 20})
    rows = [f"photos/{p.relative_to(photos)},{p.parent.name}" for p in sorted(photos.glob("*/*.png"))]
    n = header.count(",") - 1
    rows = [row + ",x" * n for row in rows]
    path = folder / "photos.csv"
    path.write_text(mark + "\n".join([header, *rows]) + "\n" + extra, encoding="utf-8")
    return path


def test_the_version_is_printed_without_a_command(rehead: Program) -> None:
    done = rehead("--version")
    assert (done.returncode, done.stdout) == (0, f"{version('rehead')}\n")


def test_debug_shows_where_an_error_came_from(rehead: Program) -> None:
    done = rehead("tune", "nowhere")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    done = rehead("tune", "nowhere", "--debug")
    assert (done.returncode, "Traceback" in done.stderr, "SourceError" in done.stderr) == (1, True, True)


def test_json_is_all_that_goes_to_standard_output(rehead: Program, photos: Path) -> None:
    done = rehead("tune", photos, "--json")
    facts = answer(done)
    told = {"run", "bundle", "recipe", "head", "int8_cosine", "seconds", "images", "report", "concerns", "verdict"}
    assert set(facts) == told
    assert facts["head"].startswith("linear")
    assert set(facts["images"]) == {"used", "skipped", "from_store"}
    assert set(facts["verdict"]["top1"]) == {"value", "low", "high", "n"}
    assert "total" in facts["seconds"]
    assert "40 photos of 2 classes" in done.stderr


def test_photos_in_heic_are_learned_from_and_predicted(rehead: Program, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.register_heif_opener()
    for label, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(20):
            noise(i, colour).save(tmp_path / "photos" / label / f"{i}.heic")
    facts = answer(rehead("tune", "photos", "--json"))
    assert facts["images"] == {"used": 40, "skipped": 0, "from_store": 0}
    done = rehead("predict", facts["bundle"], "photos/red/0.heic", "--format", "csv")
    assert "red" in done.stdout.splitlines()[1]


def test_a_parquet_manifest_is_read(rehead: Program, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    csv = manifest(tmp_path, "path,label")
    pandas.read_csv(csv).to_parquet(tmp_path / "photos.parquet")
    assert answer(rehead("tune", "photos.parquet", "--json"))["images"]["used"] == 40


def test_a_manifest_with_a_byte_order_mark_is_read(rehead: Program, tmp_path: Path) -> None:
    manifest(tmp_path, "path,label", mark="\ufeff")
    assert answer(rehead("tune", "photos.csv", "--json"))["images"]["used"] == 40


def test_a_missing_file_in_a_manifest_is_skipped_and_listed(rehead: Program, tmp_path: Path) -> None:
    manifest(tmp_path, "path,label", "photos/red/none.png,red\n")
    facts = answer(rehead("tune", "photos.csv", "--json"))
    assert facts["images"]["skipped"] == 1
    assert "photos/red/none.png,is not there" in (tmp_path / facts["run"] / "skipped.csv").read_text()


def test_an_unknown_column_is_an_error_that_names_it(rehead: Program, tmp_path: Path) -> None:
    manifest(tmp_path, "path,label,colour")
    done = rehead("tune", "photos.csv")
    assert done.returncode == 2
    assert "colour" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_duplicate_path_is_an_error_that_names_it(rehead: Program, tmp_path: Path) -> None:
    manifest(tmp_path, "path,label", "photos/red/0.png,red\n")
    done = rehead("tune", "photos.csv", "--json")
    assert done.returncode == 2
    assert "photos/red/0.png" in done.stderr


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_a_fit_travels_in_the_bundle(rehead: Program, photos: Path, tmp_path: Path, fit: str) -> None:
    facts = answer(rehead("tune", photos, "--fit", fit, "--json"))
    assert bundles.read(tmp_path / facts["bundle"]).preprocess.fit == fit


def test_fit_auto_says_what_it_compared_and_keeps_one(rehead: Program, photos: Path, tmp_path: Path) -> None:
    done = rehead("tune", photos, "--fit", "auto", "--json")
    kept = bundles.read(tmp_path / answer(done)["bundle"]).preprocess.fit
    assert kept in ("crop", "pad", "squash")
    assert f"--fit auto takes {kept}, of the least loss" in done.stderr
    assert all(f"--fit {fit}" in done.stderr for fit in ("crop", "pad", "squash"))


def test_explain_refuses_a_cache_without_a_name(rehead: Program) -> None:
    done = rehead("explain", "bundle", "photo.jpg", "--cache", "")
    assert (done.returncode, "--cache has an empty name" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        *(f"tune x {option}" for option in ("--out", "--weights", "--resume", "--from")),
        "race x --out",
        "demo --out",
        "audit x --weights",
    ],
)
def test_an_option_with_an_empty_name_is_not_of_the_current_folder(rehead: Program, tmp_path: Path, words: str) -> None:
    done = rehead(*words.split(), "")
    assert done.returncode == 2
    assert f"{words.split()[-1]} has an empty name." in done.stderr
    assert not list(tmp_path.iterdir())


def test_three_photos_give_a_verdict_as_wide_as_it_is(rehead: Program, photos: Path) -> None:
    verdict = answer(rehead("tune", photos, "--limit", "3", "--json"))["verdict"]
    assert verdict["partial"]
    assert verdict["top1"]["high"] - verdict["top1"]["low"] > 0.5
    assert "No held-out photo shows" in verdict["notes"][0]


def test_one_photo_is_an_error_that_says_how_many_are_needed(rehead: Program, photos: Path) -> None:
    done = rehead("tune", photos, "--limit", "1")
    assert done.returncode == 2
    assert "1 photo is too few to learn and verify 2 classes" in done.stderr
    assert "Use at least 8" in done.stderr


def test_a_budget_ends_extraction_and_the_verdict_says_so(many: Path, cache: Path, tmp_path: Path) -> None:
    process = begun(many, tmp_path, cache, "--budget", "1s")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    facts = json.loads(out)
    assert facts["verdict"]["partial"]
    assert facts["images"]["used"] < N_MANY


@pytest.mark.parametrize("option", ["--valid", "--test"])
def test_photos_of_another_folder_are_held_out(rehead: Program, photos: Path, tmp_path: Path, option: str) -> None:
    other = make_photos(tmp_path / "other", {"red": 5, "blue": 5})
    for i, path in enumerate(sorted(other.glob("*/*.png"))):
        noise(5000 + i, (200, 60, 60) if path.parent.name == "red" else (60, 60, 200)).save(path)
    facts = answer(rehead("tune", photos, option, other, "--json"))
    assert (facts["verdict"]["top1"]["n"], facts["verdict"]["n_train"]) == (10, 40)
    assert facts["verdict"]["side"] == ("valid" if option == "--valid" else "test")


def test_a_verification_folder_without_one_class_is_judged_and_says_so(
    rehead: Program, run: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "red_only", {"red": 6})
    facts = answer(rehead("verify", run / "bundle", photos, "--json"))
    assert facts["verdict"]["top1"]["n"] == 6
    assert facts["verdict"]["notes"][-1] == "No photo shows blue."


def test_a_cache_that_cannot_be_written_is_an_error(rehead: Program, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = rehead("tune", photos, "--cache", tmp_path / "file" / "cache")
    assert done.returncode == 2, done.stderr
    assert "--cache" in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_predictions_come_as_table_csv_and_json_lines(rehead: Program, run: Path, tmp_path: Path) -> None:
    noise(1, (200, 60, 60)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    table = rehead("predict", run / "bundle", "a.png", "b.png")
    assert table.returncode == 3
    assert "red" in table.stdout
    lines = rehead("predict", run / "bundle", "a.png", "b.png", "--format", "jsonl", "--top", "1")
    good, bad = (json.loads(line) for line in lines.stdout.splitlines())
    assert good["path"] == "a.png"
    assert bad["error"]
    written = rehead("predict", run / "bundle", "a.png", "--format", "csv", "--out", "named.csv")
    assert (written.returncode, written.stdout) == (0, "")
    assert "a.png" in (tmp_path / "named.csv").read_text()


def test_runs_are_listed_and_shown(rehead: Program, photos: Path, tmp_path: Path) -> None:
    assert "There are no runs in runs" in rehead("runs").stdout
    facts = answer(rehead("tune", photos, "--head", "prototype", "--json"))
    (tmp_path / "runs" / "odd").mkdir()
    listed = rehead("runs").stdout
    assert Path(facts["run"]).name in listed
    assert "prototype" in listed
    (only,) = answer(rehead("runs", "--json"))
    assert only["score"] == {"metric": "accuracy", **facts["verdict"]["top1"]}
    assert (only["head"], only["penalty"]) == (facts["head"], None)
    shown = rehead("runs", "show", facts["run"]).stdout
    assert re.search(r"head +prototype", shown)
    assert "held-out photos" in shown
    kept = answer(rehead("runs", "show", facts["run"], "--json"))
    assert (kept["verdict"], kept["recipe"]) == (facts["verdict"], facts["recipe"])
    assert (kept["recipe"]["backbone"], kept["recipe"]["head"]) == ("efficientnet_lite0", "prototype")
    refused = rehead("runs", "show", "runs/odd")
    assert refused.returncode == 2
    assert "is no run of rehead" in refused.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["verify", "bundle", "--folds", "5", "--variant", "int8", "--tta"], "--folds goes without --variant and --tta."),
        (["verify", "bundle", "--folds", "5", "--max-bad", "0.2"], "--folds goes without --max-bad."),
        (["verify", "bundle", "--folds", "5", "--layout", "flat"], "says how photos are read, and none are named."),
        (["audit", "photos", "--apply", "plan.csv", "--limit", "5", "--seed", "0"], "--apply goes without --limit and --seed."),
        (["audit", "photos", "--apply", "plan.csv", "--weights", "x.pt"], "--apply goes without --weights."),
        (["audit", "photos", "--apply", "plan.csv", "--backbone", "x"], "--apply goes without --backbone."),
    ],
)  # fmt: skip
def test_an_option_that_would_be_passed_over_is_refused(rehead: Program, words: list[str], named: str) -> None:
    done = rehead(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(named)


@pytest.mark.long
def test_the_first_ctrl_c_finishes_with_the_photos_that_are_there(many: Path, cache: Path, tmp_path: Path) -> None:
    process = extracting(many, tmp_path, cache)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    facts = json.loads(out)
    assert facts["verdict"]["partial"]
    assert 0 < facts["images"]["used"] < N_MANY
    assert bundles.read(tmp_path / "run" / "bundle")


def test_the_second_ctrl_c_aborts_and_what_was_computed_is_kept(
    rehead: Program, many: Path, cache: Path, tmp_path: Path
) -> None:
    process = extracting(many, tmp_path, cache)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = next(line for line in process.stderr if "Stopping" in line)  # two signals that wait are one
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, said + err
    assert err.index("What was computed is kept") < err.index("Aborted.")
    assert not (tmp_path / "run").exists()
    again = answer(rehead("tune", many, "--limit", "50", "--json", REHEAD_CACHE=str(tmp_path / "own")))
    assert again["images"]["from_store"] > 0


@pytest.mark.parametrize("asks", [True, False])
def test_that_work_is_kept_is_said_of_jobs_that_keep_some(asks: bool) -> None:
    code = f"""
from rehead.cli.arguments import Interrupt
from rehead.cli.ending import guarded
from rehead.cli.terminal import progress_for

def app(**_):
    with Interrupt(progress_for(json=True)) as stop:
        {"stop()" if asks else "pass"}
        raise KeyboardInterrupt

raise SystemExit(guarded(app))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    kept = "What was computed is kept, and not computed again.\n"
    assert (done.returncode, done.stderr) == (130, kept * asks + "Aborted.\n")


def test_pixels_are_the_same_bit_for_bit_on_every_way_in(run: Path, tmp_path: Path) -> None:
    import rehead
    from rehead.data.scan import scan_held_out
    from rehead.data.sources import open_source
    from rehead.pixels import fit_array, fit_image, prepare

    model = rehead.load(run / "bundle")
    fit = model.bundle.preprocess
    picture = noise(7, (200, 60, 60), size=300).rotate(10, expand=True)
    (tmp_path / "photos" / "red").mkdir(parents=True)
    path = tmp_path / "photos" / "red" / "a.png"
    picture.save(path)
    wanted = prepare(path.read_bytes(), fit)
    assert np.array_equal(fit_image(Image.open(path), fit), wanted)
    assert np.array_equal(fit_array(np.asarray(picture), fit), wanted)
    catalog = scan_held_out(open_source(tmp_path / "photos", cache=tmp_path))
    assert np.array_equal(prepare(catalog.read(catalog.photos[0]), fit), wanted)
    ways = [str(path), path, path.read_bytes(), picture, np.asarray(picture)]
    assert len({prediction.top for prediction in (model.predict(way) for way in ways)}) == 1


@pytest.mark.slow
@pytest.mark.realdata
def test_the_readme_is_true_of_cats_and_dogs(rehead: Program, tmp_path: Path) -> None:
    held_out = set((DATA / "dogscats_test.txt").read_text().split())
    rows = ["path,label,split"]
    for path in sorted((DATA / "dogscats").glob("*/*.jpg")):
        side = "test" if f"{path.parent.name}/{path.name}" in held_out else "train"
        rows.append(f"{path},{path.parent.name},{side}")
    (tmp_path / "dogscats.csv").write_text("\n".join(rows))
    facts = answer(rehead("tune", "dogscats.csv", "--json"))
    assert facts["verdict"]["top1"]["n"] == 400
    assert facts["verdict"]["top1"]["value"] >= 0.98


@pytest.mark.realdata
@pytest.mark.slow
def test_ants_and_bees_are_told_apart_and_the_bundle_judges_them_the_same(rehead: Program) -> None:
    ants = answer(rehead("tune", DATA / "hymenoptera", "--json"))
    assert ants["verdict"]["top1"]["n"] == 153
    assert ants["verdict"]["top1"]["value"] >= 0.94
    judged = answer(rehead("verify", ants["bundle"], DATA / "hymenoptera" / "val", "--json"))
    assert judged["verdict"]["top1"]["value"] == pytest.approx(ants["verdict"]["top1"]["value"])


def commands() -> list[str]:
    """Every command in the README and the docs."""
    texts = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    lines = [line for path in texts for line in path.read_text().splitlines()]
    return sorted({re.sub(r"\s+#.*", "", line[2:]) for line in lines if line.startswith("$ rehead ")})


@pytest.mark.long
def test_every_command_in_the_docs_has_options_that_exist(rehead: Program) -> None:
    helps: dict[str, str] = {}
    assert len(commands()) > 15
    for command in commands():
        _, name, *rest = command.split()
        if name == "cache" and rest[:1] == ["clear"]:
            name = "cache clear"
        helps[name] = helps.get(name) or rehead(*name.split(), "--help", COLUMNS="200").stdout
        for option in re.findall(r"--[a-z][a-z-]*", command):
            assert option in helps[name], command


@pytest.mark.parametrize("libraries", ["'torch'", ""])
def test_a_process_that_ends_at_once_says_all_and_gives_its_code(libraries: str) -> None:
    code = f"""
import atexit, sys, threading, time, types
from rehead.cli.ending import leave
sys.modules.update({{name: types.ModuleType(name) for name in [{libraries}]}})
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.5), print("late", flush=True))).start() if "late" in sys.argv else None
sys.stdout.write("said ")
leave(3)
"""
    for late in ([], ["late"]):
        done = subprocess.run([sys.executable, "-c", code, *late], capture_output=True, text=True)
        assert done.returncode == 3
        assert set(done.stdout.split()) == {"said", "registered", *late}


def test_a_process_with_pytorch_is_not_taken_apart() -> None:
    code = """
import sys, types
from rehead.cli.ending import leave
class Last:
    def __del__(self): print("taken apart", flush=True)
last = Last()
if len(sys.argv) > 1: sys.modules["torch"] = types.ModuleType("torch")
leave(0)
"""
    said = [subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True).stdout
            for given in ([], ["torch"])]  # fmt: skip
    assert said == ["taken apart\n", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries have no such call")
def test_free_memory_below_what_is_still_used_is_handed_back() -> None:
    code = """
import numpy as np
from rehead.heap import hand_back
def held(): return int(open("/proc/self/statm").read().split()[1]) * 4096
many = [np.ones(8_000) for _ in range(2_000)]  # 128 MB in pieces
above = [np.ones(8_000) for _ in range(20)]
del many
before = held()
hand_back()
print(before - held())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100e6


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="other C libraries have no such call",
)
def test_large_blocks_stay_with_the_process_while_layers_learn_and_are_handed_back_after() -> None:
    code = """
import resource
from rehead.heap import hand_back, kept
def held(): return int(open("/proc/self/statm").read().split()[1]) * 4096
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def batch(): b"x" * 48_000_000  # which are given back at once
def cost(n=10):
    before = faults()
    for _ in range(n): batch()
    return faults() - before
batch()
hand_back()
usual, before = cost(), held()
with kept("cpu"):
    with kept("cpu"): batch()
    within = cost()
    grown = held() - before
after = held() - before
print(usual, within, cost(), grown, after)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    usual, within, after, grown, left = map(int, done.stdout.split())
    assert within < usual / 100
    assert after > usual / 2
    assert grown > 40e6
    assert left < 5e6
