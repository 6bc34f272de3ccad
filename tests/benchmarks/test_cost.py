"""What a job costs at any size: laws of the simulation, what was measured beside it, and the page that is written from both."""

from __future__ import annotations

import importlib
import itertools
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    "machine",
    "measured",
    "cost",
    "scaling",
    "scaling.simulation",
    "scaling.cases",
    "scaling.calibration",
    "scaling.tables",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, by name; they find each other as they do when one is run."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name.rpartition(".")[2]: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in NAMES:
            sys.modules.pop(name, None)


def test_without_a_part_all_are_run_and_a_case_that_is_not_there_is_refused(
    bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    cost = bench["cost"]
    assert cost.asked([]).parts == cost.PARTS
    assert cost.asked(["rates", "tables"]).parts == ["rates", "tables"]
    assert cost.asked(["cases", "--again", "local-400,1x1-400"]).again == (("local", 400), ("1x1", 400))
    with pytest.raises(SystemExit):
        cost.asked(["cases", "--again", "local-400,locl-1399"])
    assert "no case is called locl-1399; there are far-400" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cost.asked(["tabels"])
    assert "no part is called tabels; there are cases, rates, tables" in capsys.readouterr().err


def test_the_simulation_has_the_numbers_of_the_code(bench: dict[str, ModuleType]) -> None:
    from rehead.cluster import computing, pool
    from rehead.data import far
    from rehead.features import engines, torch_engine

    sim = bench["simulation"]
    assert (sim.LEAST, sim.MOST, sim.PARTS_A_CORE) == (pool.LEAST, pool.MOST, pool.PARTS_A_CORE)
    for n, cores in ((0, 1), (1_399, 2), (10_000, 2), (1_000_000, 64), (10**8, 1)):
        assert sim.part_of(n, cores) == pool.part_of(n, cores)
    assert [pool.part_of(n, 4) for n in (1, 4_096, 8_192, 10**9)] == [pool.LEAST, pool.LEAST, 64, pool.MOST]
    assert (sim.TASKS, sim.MOST_TASKS, sim.HANDED) == (computing.TASKS, computing.MOST_TASKS, computing.HANDED)
    assert (sim.READERS, sim.CHUNK) == (far.AT_ONCE, far.CHUNK)
    assert (sim.FAR_A_CORE, sim.MOST_FAR) == (far.A_CORE, far.MOST)
    assert engines.MAX_WORKERS == sim.MAX_WORKERS
    assert 2 * torch_engine.LANES == sim.FEEDERS


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 40_000), nodes=st.integers(1, 50), cores=st.integers(1, 70), by_ray=st.booleans())
def test_every_photo_comes_back_once(
    bench: dict[str, ModuleType], n: int, nodes: int, cores: int, by_ray: bool
) -> None:
    sim = bench["simulation"]
    place = sim.Place(nodes=nodes, cores=cores, gbit_s=10, by_ray=by_ray)
    costs = sim.Costs(network_s=0.01, decode_s=0.002, photo_bytes=1e5, wait_s=0.1, driver_s=1e-4)
    assert sim.simulate(n, place, costs).photos == n


def test_more_nodes_never_take_longer_and_help_no_more_once_the_driver_is_busy(bench: dict[str, ModuleType]) -> None:
    sim = bench["simulation"]
    costs = sim.Costs(network_s=0.01, driver_s=1e-4)
    took = [sim.simulate(1_000_000, sim.Place(nodes=nodes, cores=10), costs) for nodes in (1, 2, 4, 8, 16, 64)]
    seconds = [one.total for one in took]
    assert all(after <= 1.02 * before for before, after in itertools.pairwise(seconds))
    assert seconds[1] == pytest.approx(seconds[0] / 2, rel=0.03)
    assert seconds[-1] == pytest.approx(100, rel=0.03)  # 10,000 photos a second through one process
    assert (took[0].held_up_by, took[-1].held_up_by) == ("network_s", "driver_s")


def test_a_link_of_twice_the_rate_halves_what_waits_for_links(bench: dict[str, ModuleType]) -> None:
    sim = bench["simulation"]
    costs = sim.Costs(network_s=1e-4, photo_bytes=1e6)
    slow, fast = (sim.simulate(200_000, sim.Place(nodes=2, cores=8, gbit_s=rate), costs) for rate in (1, 2))
    assert slow.held_up_by == "photo_bytes"
    assert fast.seconds["extract"] == pytest.approx(slow.seconds["extract"] / 2, rel=0.05)
    assert slow.seconds["extract"] == pytest.approx(200_000 * 8e6 / 2e9, rel=0.05)


def test_larger_parts_and_fewer_lanes_give_the_same_seconds(
    bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = bench["simulation"]
    costs = sim.Costs(network_s=0.01, decode_s=0.002, photo_bytes=2e4, wait_s=0.1, driver_s=1e-4, identify_s=1e-3)
    place = sim.Place(nodes=2, cores=24, gbit_s=10)
    few = sim.simulate(150_000, place, costs).total
    monkeypatch.setattr(sim, "MOST_LANES", 1_000)
    assert few == pytest.approx(sim.simulate(150_000, place, costs).total, rel=0.05)


def test_what_takes_no_time_any_more_holds_nothing_up(bench: dict[str, ModuleType]) -> None:
    sim = bench["simulation"]
    costs = sim.Costs(
        network_s=0.01, decode_s=0.002, identify_s=1e-3, look_s=4e-3, photo_bytes=2e4, wait_s=0.1, requests_s=1e-4,
        driver_s=1e-4, back_bytes=2600, disk_s=1e-5, listed_s=1e-4, lists_s=1e-5, handed_s=1e-5, solve_s=1e-4, begin_s=1.0,
    )  # fmt: skip
    before = []
    for _ in range(8):
        outcome = sim.simulate(10_000, sim.Place(nodes=2, cores=8, gbit_s=10), costs)
        before.append(outcome.held_up_by)
        costs = replace(costs, **{outcome.held_up_by: 0.0})
    assert len(set(before)) == len(before)


def test_the_cases_that_were_measured_are_told_within_a_fifth(bench: dict[str, ModuleType]) -> None:
    calibration = bench["calibration"]
    found = calibration.predicted(calibration.results("cost")["cases"])
    assert {row["where"] for row in found} == {"alone", "far", "1x2 far", "local", "1x1", "1x2", "2x1"}
    assert not {(row["where"], row["photos"]) for row in found} & {*calibration.TAKEN_FROM}
    assert [row for row in found if abs(row["error"]) > 0.2] == []


@pytest.mark.long
def test_the_page_is_what_follows_from_results_and_prices(bench: dict[str, ModuleType]) -> None:
    tables = bench["tables"]
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    prices = tomllib.loads(tables.PRICES.read_text())
    assert tables.written(text, bench["calibration"].results("cost"), prices) == text


def test_what_prices_say_of_photos_is_said_to_be_theirs(bench: dict[str, ModuleType]) -> None:
    tables, facts = bench["tables"], bench["calibration"].results("cost")
    prices = tomllib.loads(tables.PRICES.read_text())
    measured = f"{facts['bytes of a photo']:,.0f}"
    assert f"| bytes of a photo | {measured} | `cost.py`: the cats and dogs |" in tables.what_is_taken(facts, prices)
    prices["job"]["bytes_of_a_photo"] = 100_000
    assert "| bytes of a photo | 100,000 | `prices.toml` |" in tables.what_is_taken(facts, prices)


def test_a_page_without_markers_is_refused(bench: dict[str, ModuleType]) -> None:
    for text in ("", "<!-- a -->", "<!-- /a --> <!-- a -->", "<!-- a --><!-- /a -->" * 2):
        with pytest.raises(ValueError, match="needs"):
            bench["tables"].between(text, "a", "new")
