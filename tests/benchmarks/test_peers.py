"""What compares peers: lines are counted, held-out photos judged, a stopped matrix goes on, tables say what went wrong.

The results here are made up for the tests; no peer runs, but a command of the shell does where what it costs is measured.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
NAMES = ("cells", "chart", "claims", "entrants", "environments", "lines", "measure", "one_cell", "photos", "places", "report",
         "summary", "watched", "weights", "machine", "arguments")  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, by name; they find each other as they do when one is run."""
    sys.path.insert(0, str(PEERS))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(PEERS))
        for name in NAMES:
            sys.modules.pop(name, None)
        sys.path.remove(str(PEERS.parent))  # places.py adds it


def made_up(peer: str, seed: int = 0, outcome: str = "done", **others: Any) -> dict[str, Any]:
    """The facts of a cell that nobody measured."""
    done = {"wall_s": 20.0, "cpu_s": 30.0, "peak_mb": 1000.0, "n": 100, "right": 95, "accuracy": 0.95, "low": 0.888,
            "high": 0.978, "epochs_s": [4.0, 5.0, 6.0], "artefact_bytes": 17_000_000, "predict_s": [1.0, 1.2, 1.1]}  # fmt: skip
    about = {"peer": peer, "title": peer.title(), "data": "hymenoptera", "mode": "head", "seed": seed, "epochs": 3, "lines": 7,
             "environment_bytes": 5_600_000_000, "versions": {"python": "0.0", "torch": "0.1", peer: "0.2"},
             "commit": "0000000", "date": "2000-01-01",
             "machine": {"processor": "Imaginary", "cores": 2, "memory_gb": 3}}  # fmt: skip
    return {**about, "outcome": outcome, "last_lines": [], **(done if outcome == "done" else {}), **others}


def test_blank_lines_comments_docstrings_and_what_the_benchmark_needs_are_no_lines_of_a_user(
    bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        '"""Says\nmuch."""\n# for the benchmark\nimport sys\n\n# end\nimport os  # counts\n\n# no\n'
        'def f():\n    """Also\n    no."""\n    return """a\nb"""\n'
    )
    assert bench["lines"].user_lines(program) == 4
    shell = tmp_path / "train.sh"
    shell.write_text("# says\nset -e\n  # for the benchmark\nPHOTOS=$1\n  # end\ntool \\\n    photos\n")
    assert bench["lines"].user_lines(shell) == 3


@pytest.mark.parametrize(
    "text", ["# for the benchmark\nx = 1\n", "x = 1\n# end\n", "# for the benchmark\n" * 2 + "# end\n"]
)
def test_a_block_that_does_not_begin_or_end_is_an_error(
    bench: dict[str, ModuleType], tmp_path: Path, text: str
) -> None:
    (tmp_path / "train.py").write_text(text)
    with pytest.raises(ValueError, match="block"):
        bench["lines"].user_lines(tmp_path / "train.py")


def test_what_a_program_imports_is_found_wherever_it_stands(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    program = "import os.path\nfrom a.b import c\ndef f():\n    import d, e as g\n    from a.b import c\n"
    assert bench["one_cell"].imports_of(program) == ["import os.path", "from a.b import c", "import d, e as g"]


def test_a_cell_waits_for_the_machine_to_be_idle(bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([(0, 0), (10, 200), (180, 400), (380, 600)])
    monkeypatch.setattr(bench["one_cell"], "_ticks", lambda: next(seen))
    monkeypatch.setattr(bench["one_cell"].time, "sleep", lambda _: None)
    assert bench["one_cell"].idle() == 0.0
    assert not list(seen)


def test_held_out_photos_are_judged_by_their_folders_with_an_interval(
    bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    held_out = _held_out(tmp_path)
    table = tmp_path / "heldout.csv"
    table.write_text("photo,label\nbee/0.jpg,bee\nbee/1.jpg,ant\nant/0.jpg,ant\nant/1.jpg,ant\n")
    facts = bench["cells"].judged(table, held_out)
    assert (facts["right"], facts["n"], facts["accuracy"]) == (3, 4, 0.75)
    assert facts["low"] == pytest.approx(0.3006, abs=1e-4)  # E. B. Wilson's interval of 3 of 4
    assert facts["high"] == pytest.approx(0.9544, abs=1e-4)


@pytest.mark.parametrize(
    "rows", ["bee/0.jpg,bee", "bee/0.jpg,bee\n" * 4, "bee/0.jpg,bee\nbee/1.jpg,bee\nant/0.jpg,ant\nx/1.jpg,ant"]
)
def test_photos_that_are_missing_doubled_or_strange_are_not_judged(
    bench: dict[str, ModuleType], tmp_path: Path, rows: str
) -> None:
    (tmp_path / "heldout.csv").write_text(f"photo,label\n{rows}\n")
    with pytest.raises(ValueError, match="each has to be named once"):
        bench["cells"].judged(tmp_path / "heldout.csv", _held_out(tmp_path))


def test_a_part_of_a_matrix_compares_all_peers_on_the_cheap_cells(bench: dict[str, ModuleType]) -> None:
    cells = bench["cells"].in_order(["a", "b"], ["small", "large"], ["head", "full"], [0, 1])
    assert [(c.peer, c.data, c.mode, c.seed) for c in cells[:5]] == [
        ("a", "small", "head", 0), ("b", "small", "head", 0), ("a", "large", "head", 0), ("b", "large", "head", 0),
        ("a", "small", "full", 0),
    ]  # fmt: skip
    assert len({c.key for c in cells}) == len(cells) == 16


@pytest.fixture
def begun(bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells of four that were begun: rehead and pytorch, two seeds. The third that is begun is interrupted."""
    found: list[str] = []

    def measured(peer: Any, cell: Any, _: Any) -> dict[str, Any]:
        if found.append(cell.key) or (len(found) == 3):
            raise KeyboardInterrupt
        return made_up(peer.name, cell.seed)

    monkeypatch.setattr(bench["measure"], "measured", measured)
    monkeypatch.setattr(bench["measure"].environments, "build", lambda *_: None)
    monkeypatch.setattr(bench["photos"], "lay_out", lambda name, work: work / name)
    monkeypatch.setattr(bench["measure"].signal, "signal", lambda *_: None)
    monkeypatch.setattr(bench["weights"], "lay_out", lambda work: work / "weights")
    given = ["measure.py", "--peers", "rehead,pytorch", "--data", "hymenoptera", "--modes", "head", "--seeds", "0,1"]
    monkeypatch.setattr(
        sys, "argv", [*given, "--out", str(tmp_path / "results" / "peers.json"), "--work", str(tmp_path)]
    )
    return found


def test_a_matrix_goes_on_where_it_was_stopped(bench: dict[str, ModuleType], tmp_path: Path, begun: list[str]) -> None:
    out = tmp_path / "results" / "peers.json"
    with pytest.raises(SystemExit, match="the same command goes on"):
        bench["measure"].main()
    assert sorted(bench["cells"].read_results(out)["cells"]) == sorted(begun[:2])
    bench["measure"].main()
    assert begun[3:] == [begun[2], "pytorch, hymenoptera, head, seed 1"]
    assert len(bench["cells"].read_results(out)["cells"]) == 4


def test_what_failed_is_tried_anew_and_what_cannot_be_done_is_not(
    bench: dict[str, ModuleType], tmp_path: Path, begun: list[str]
) -> None:
    out = tmp_path / "results" / "peers.json"
    keys = [f"{peer}, hymenoptera, head, seed {seed}" for peer in ("rehead", "pytorch") for seed in (0, 1)]
    outcomes = ("failed", "cannot", "timeout", "timeout")
    cells = {key: {**made_up("a"), "outcome": outcome} for key, outcome in zip(keys, outcomes, strict=True)}
    cells[keys[2]]["wall_s"], cells[keys[3]]["wall_s"] = 60.0, 3601.0  # of which an hour is given now
    bench["cells"].write_results(out, {"format": 1, "cells": cells})
    bench["measure"].main()
    assert begun == [keys[0], keys[2]]


def test_what_could_not_be_kept_is_not_measured(
    bench: dict[str, ModuleType], tmp_path: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"Results cannot be written to .* --out is a file"):
        bench["measure"].main()
    (tmp_path / "half.json").write_text('{"format": 1, "cel')
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "half.json")])
    with pytest.raises(SystemExit, match=r"half\.json is no JSON"):
        bench["measure"].main()
    assert begun == []
    assert (tmp_path / "half.json").read_text() == '{"format": 1, "cel'


def test_two_measurements_are_not_made_at_once(bench: dict[str, ModuleType], tmp_path: Path, begun: list[str]) -> None:
    with bench["measure"].alone(tmp_path), pytest.raises(SystemExit, match="Another measurement is under way"):
        bench["measure"].main()
    assert begun == []


def test_a_document_stays_as_it_is_where_nothing_was_measured(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("<!-- peers -->\nwas there\n<!-- /peers -->\n")
    with pytest.raises(ValueError, match="There are no results in"):
        bench["report"].main(tmp_path, document)
    assert "was there" in document.read_text()


def test_results_of_another_format_are_refused(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "peers.json").write_text(json.dumps({"format": 99, "cells": {}}))
    with pytest.raises(ValueError, match="format 99"):
        bench["cells"].read_results(tmp_path / "peers.json")


@pytest.mark.long
def test_a_command_costs_what_its_children_and_orphans_cost(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{orphan}\n"
    code += "import time; held = bytearray(60_000_000); time.sleep(2); print('told'); print('answer')"
    watch = bench["watched"].watch
    ran = watch(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ,
        log=tmp_path / "log",
        timeout_s=60,
        first_words="told",
    )
    assert ran.is_fine
    assert ran.answer == "answer"
    assert ran.cpu_s > 0.75
    assert ran.peak_mb > 60
    assert ran.wall_s > 2


def test_a_command_that_takes_too_long_is_ended_with_all_it_began(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    code = "import subprocess, sys; print('begun', flush=True); "
    code += "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    watch = bench["watched"].watch
    ran = watch([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, log=tmp_path / "log", timeout_s=0.7)
    assert ran.timed_out
    assert not ran.is_fine
    assert ran.last_lines == ["begun"]
    assert ran.wall_s < 30


def test_a_row_has_medians_of_seeds_and_an_interval_that_seeds_do_not_narrow(bench: dict[str, ModuleType]) -> None:
    cells = [made_up("rehead", seed, wall_s=wall) for seed, wall in enumerate((9.0, 10.0, 50.0))]
    row = bench["summary"].rows(cells, "hymenoptera", "head")[0]
    assert "| 3 | 10.0 (9.0 to 50) |" in bench["report"].table([row])
    assert (row.wall_s, row.epoch_s, row.predict_s, row.n_seeds) == (10.0, 5.0, 1.1, 3)
    assert (round(row.right.low, 3), round(row.right.high, 3)) == (0.888, 0.978)


def test_what_failed_or_cannot_be_done_is_in_the_table_with_its_words(bench: dict[str, ModuleType]) -> None:
    cells = [
        made_up("rehead"),
        made_up("slow", wall_s=200.0),
        made_up("broken", outcome="failed", wall_s=1.0, last_lines=["first", "no such | thing"]),
        made_up("late", outcome="timeout", wall_s=3600.0),
        made_up("half", 0), made_up("half", 1, outcome="cannot", last_lines=["not this"]),
    ]  # fmt: skip
    table = bench["report"].table(bench["summary"].rows(cells, "hymenoptera", "head"))
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    assert list(lines) == ["Half", "Rehead", "Slow", "Broken", "Late"]
    assert "| 1 | 200 | 10.0 x | 95.0 % (88.8 to 97.8) | 5.0 | – | 1,000 | 30 | 7 | 5.6 | 17.0 | 1.1 |" in lines["Slow"]
    assert "failed: no such / thing" in lines["Broken"]
    assert "not finished in 3600 s" in lines["Late"]
    assert "1 of 2 seeds cannot: not this" in lines["Half"]
    assert {line.count("|") for line in table.splitlines()} == {len(bench["report"].COLUMNS) + 1}


def test_claims_are_ratios_to_the_best_of_the_tools_and_in_bold_where_they_are_what_was_wanted(
    bench: dict[str, ModuleType],
) -> None:
    cells = [
        made_up("rehead"),
        made_up("slow", wall_s=400.0, peak_mb=900.0),
        made_up("quick", wall_s=310.0, date="2000-01-02"),
        made_up("pytorch-tuned", wall_s=100.0, peak_mb=500.0, accuracy=0.96),
        made_up("sklearn", wall_s=39.0),
        made_up("broken", outcome="failed", wall_s=1.0),
        made_up("rehead", mode="full", accuracy=0.9),
        made_up("slow", mode="full", wall_s=99.0),
    ]
    lines = bench["claims"].claims(cells).splitlines()
    rows = {line.split(" | ")[0]: line for line in reversed(lines)}  # the first of those that are called the same
    assert (
        "| 15 | **15.5***: 310 of Quick for 20 (1 and 1 seeds) | – | – |"
        in rows["| a head, cold: seconds of the fastest trained tool"]
    )
    assert "| 15 | 5.0†: 100 for 20 (1 and 1 seeds) | – | – |" in rows["| the same: of PyTorch's tuned loop"]
    assert "| 2 | 1.95: 39 for 20 (1 and 1 seeds) | – | – |" in rows["| the same: of scikit-learn on timm's features"]
    assert (
        "| 1 | 0.90: 900 of Slow for 1,000 (1 and 1 seeds) | – | – |" in rows["| a head: peak MB of the leanest tool"]
    )
    assert (
        "| 1 | 5.0†: 99 of Slow for 20 (1 and 1 seeds) | – | – |"
        in rows["| everything learns: seconds of the fastest tool"]
    )
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_accuracies_are_in_bold_where_nothing_else_is_right_on_more_of_the_photos(bench: dict[str, ModuleType]) -> None:
    cells = [
        made_up("rehead", accuracy=0.91),
        made_up("slow", accuracy=0.90),
        made_up("sklearn", accuracy=0.92),
        made_up("rehead", mode="full", accuracy=0.93),
        made_up("slow", mode="full", accuracy=0.93),
        made_up("broken", mode="full", outcome="failed"),
        made_up("rehead", mode="last"),
    ]
    lines = bench["claims"].accuracies(cells).splitlines()
    assert "| a head | 91.0 %; 92.0 of Sklearn (1 and 1 seeds) | – | – |" in lines
    assert "| everything | **93.0 %**; 93.0 of Slow (1 and 1 seeds) | – | – |" in lines
    assert "| the last stage too | – | – | – |" in lines


def test_the_document_changes_between_its_markers_alone_and_twice_gives_the_same(tmp_path: Path) -> None:
    document, results = tmp_path / "benchmarks.md", tmp_path / "imaginary" / "peers.json"
    results.parent.mkdir()
    document.write_text("before\n<!-- peers -->\nwas there\n<!-- /peers -->\nafter\n")
    results.write_text(
        json.dumps({"format": 1, "cells": {"a": made_up("rehead"), "b": made_up("slow <&>", wall_s=99.0)}})
    )
    command = [sys.executable, str(PEERS / "report.py"), str(tmp_path), str(document)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run(command, env=environment).returncode == 0
    once, picture = document.read_text(), (tmp_path / "peers.svg").read_text()
    assert once.startswith("before\n<!-- peers -->\n")
    assert once.endswith("\n<!-- /peers -->\nafter\n")
    assert "was there" not in once
    assert "2 cores of Imaginary, 3 GB; torch 0.1, python 0.0" in once
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert subprocess.run(command, env=environment).returncode == 0
    assert (document.read_text(), (tmp_path / "peers.svg").read_text()) == (once, picture)


def test_results_of_two_machines_are_never_in_one_table(bench: dict[str, ModuleType]) -> None:
    other = {"processor": "Other(R) CPU", "cores": 4, "memory_gb": 5, "instructions": ["avx2"]}
    cells = [made_up("rehead"), made_up("slow", wall_s=99.0)]
    text = bench["report"].section([cells, [made_up("rehead", machine=other, wall_s=7.0)]], {})
    first, second = text.split("### On Other(R) CPU\n")
    assert "Imaginary" in first
    assert "avx2" not in first
    assert "4 cores of Other(R) CPU with avx2, 5 GB; " in second
    assert "Imaginary" not in second
    assert ("| Slow |" in first, "| Slow |" in second) == (True, False)
    assert text.count("](peers.svg)") == 1


def test_a_machines_folder_is_named_by_what_its_times_depend_on(bench: dict[str, ModuleType]) -> None:
    name = bench["machine"].machine_name
    assert name("Intel(R) Xeon(R) CPU @ 2.30GHz", 2, ["avx2"]) == "intel-xeon-cpu-2-30ghz-2-cores"
    assert name("AMD EPYC", 16, ["avx2", "avx512_bf16"]) == "amd-epyc-16-cores-bfloat16"
    assert bench["places"].results_here().parent == ROOT / "benchmarks" / "results"


def test_a_document_without_markers_is_refused(bench: dict[str, ModuleType]) -> None:
    for text in ("", "<!-- peers -->", "<!-- /peers --> <!-- peers -->", "<!-- peers --><!-- /peers -->" * 2):
        with pytest.raises(ValueError, match="needs"):
            bench["report"].between(text, "new")


def test_every_peer_of_the_tree_can_be_read_and_pins_what_it_installs(bench: dict[str, ModuleType]) -> None:
    peers = bench["entrants"].every_peer()
    assert next(iter(peers)) == "rehead"
    for peer in peers.values():
        assert bench["lines"].user_lines(peer.train) > 0
        assert set(peer.modes) <= set(bench["entrants"].MODES)
        lines = [line.split("#")[0].strip() for line in peer.requirements.read_text().splitlines()]
        loose = [
            line for line in lines if line and "==" not in line and "REHEAD_CHECKOUT" not in line and line[0] != "-"
        ]
        assert not loose, peer.name


def test_a_key_that_nobody_reads_is_an_error(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "train.sh").touch()
    (tmp_path / "new" / "predict.sh").touch()
    (tmp_path / "new" / "peer.toml").write_text('titel = "New"\n')
    with pytest.raises(ValueError, match="titel"):
        bench["entrants"].read_peer(tmp_path / "new")


def _held_out(folder: Path) -> Path:
    for label in ("ant", "bee"):
        for i in range(2):
            path = folder / "val" / label / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder / "val"


def test_a_row_says_of_how_many_seeds_it_is(bench: dict[str, ModuleType]) -> None:
    row = bench["summary"].Row
    many = row(peer="rehead", title="rehead", n_seeds=3, trouble="", wall_s=6.0)
    few = row(peer="other", title="other", n_seeds=1, trouble="", wall_s=30.0)
    lines = bench["report"].table([many, few]).splitlines()
    assert lines[2].startswith("| rehead | 3 |")
    assert lines[3].startswith("| other | 1 |")
