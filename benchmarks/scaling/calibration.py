"""What a photo costs, from results in folders of benchmarks/results/: for the cases that are checked, and for any size.

The cases that are checked are predicted from those of 1,399 photos alone, with `--ray local` and on one node of one core.
Clusters of two cores are told by `--ray local`, which begins as many actors on as many cores, and by what it took to reach the
one node. Photos far away are those that are near, with the seconds that each read is late.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Any

from machine import RESULTS

from rehead.data.listing import LISTS
from scaling.idle import FAR_S
from scaling.simulation import Costs, Place, part_of, simulate

MACHINE, GPU = "amd-epyc-2-cores-bfloat16", "nvidia-h200"  # whose results the page is made from
CALIBRATED = 1_399  # photos of the cases that costs are taken from
TAKEN_FROM = (("alone", CALIBRATED), ("local", CALIBRATED), ("1x1", CALIBRATED))
HOST_CORES = 2
Case = dict[str, Any]


def results(name: str, machine: str = MACHINE) -> dict[str, Any]:
    """The facts of a script on a machine."""
    facts: dict[str, Any] = json.loads((RESULTS / machine / f"{name}.json").read_text())["facts"]
    return facts


def first_number(words: Any) -> float:
    """151.85 of '151.85 (150.70 to 153.89, 3 runs)'."""
    found = re.match(r"[\d.]+", str(words))
    assert found is not None, words
    return float(found[0])


def medians(runs: list[Case]) -> dict[tuple[str, int], Case]:
    """One case of all runs at the same place and size, by these."""
    by_key: dict[tuple[str, int], list[Case]] = defaultdict(list)
    for run in runs:
        by_key[run["where"], run["photos"]].append(run)
    return {
        (where, n): {"where": where, "photos": n}
        | {name: median(run[name] for run in same) for name in same[0] if name not in ("where", "photos")}
        for (where, n), same in by_key.items()
    }


def place_of(where: str) -> Place:
    """Where a case ran."""
    if where in ("alone", "far", "local"):
        return Place(cores=HOST_CORES, host_cores=HOST_CORES, by_ray=where == "local")
    nodes, cores = map(int, where.removesuffix(" far").split("x"))
    return Place(nodes=nodes, cores=cores, host_cores=HOST_CORES)


def costs_of(case: Case) -> Costs:
    """What photos cost in a case."""
    n, place = case["photos"], place_of(case["where"])
    core_s = place.lanes / case["rate"]
    phases = sum(case[name] for name in ("connect", "read", "extract", "look", "solve"))
    return Costs(
        network_s=core_s,
        identify_s=place.lanes * case["read"] / n,
        look_s=HOST_CORES * case["look"] / n,
        solve_s=case["solve"] / n,
        connect_s=case["connect"],
        begin_s=max(0.0, case["first"] - (part_of(n, place.lanes) * core_s if place.by_ray else 0.0)),
        rest_s=case["seconds"] - phases,
    )


def predicted(runs: list[Case]) -> list[dict[str, Any]]:
    """Of each case that nothing was taken from: what was said, what was measured, and by how much it is off."""
    cases = medians(runs)
    costs = {where: costs_of(cases[where, n]) for where, n in TAKEN_FROM}
    two = replace(costs["local"], connect_s=costs["1x1"].connect_s)
    costs |= {"1x2": two, "2x1": two, "far": replace(costs["alone"], wait_s=FAR_S)}
    costs["1x2 far"] = replace(two, wait_s=FAR_S)
    rows = []
    for (where, n), case in cases.items():
        if (where, n) in TAKEN_FROM:
            continue
        told = simulate(n, place_of(where), costs[where])
        extract = told.seconds["extract"] + told.seconds["begin"]
        rows.append({
            "where": where,
            "photos": n,
            "runs": sum((run["where"], run["photos"]) == (where, n) for run in runs),
            "extract, predicted s": round(extract, 1),
            "extract, measured s": round(case["extract"], 1),
            "predicted s": round(told.total, 1),
            "measured s": round(case["seconds"], 1),
            "error": round(told.total / case["seconds"] - 1, 3),
        })  # fmt: skip
    return rows


def costs_at_scale(facts: dict[str, Any], prices: dict[str, Any], by_device: bool = False) -> Costs:
    """What a photo costs on machines of their own, from all results. by_device: ResNet-50 on a GPU, decoded by 16 cores."""
    limits, cluster, gpu = results("limits"), results("cluster"), results("gpu", GPU)
    cases = medians(facts["cases"])
    alone, node = costs_of(cases["alone", CALIBRATED]), costs_of(cases["1x1", CALIBRATED])
    kept = first_number(cluster["rate with --ray local, of that of one machine"])
    decode_s = HOST_CORES / first_number(limits["pipeline, fp32: D, the decoder, images/s"])
    network_s = HOST_CORES / first_number(limits["pipeline, fp32: E, the fastest engine, images/s"])
    (few, few_s), (many, many_s) = list(facts["solve, s"].items())[-2:]
    bucket, first, second = prices["bucket"], facts["driver, few parts"], facts["driver"]
    costs = Costs(
        decode_s=decode_s / kept,
        network_s=network_s / kept,
        identify_s=HOST_CORES / facts["identify, photos/s"],
        look_s=alone.look_s,
        compare_s=facts["lists, a photo"]["compared, s of a core"],
        driver_s=1 / second["photos for a second of CPU"],
        lists_s=facts["lists, a photo"]["s"],
        handed_s=max(0.0, second["to the first, s"] - first["to the first, s"]) / (second["photos"] - first["photos"]),
        solve_s=(many_s - few_s) / (int(many) - int(few)),
        listed_s=bucket["first_byte_s"] / bucket["page"] / min(LISTS, prices["job"]["class_folders"]),
        wait_s=bucket["first_byte_s"],
        requests_s=1 / (bucket["gets_s"] * prices["job"]["class_folders"]),
        photo_bytes=prices["job"].get("bytes_of_a_photo", facts["bytes of a photo"]),
        back_bytes=second["bytes that come back, a photo"],
        disk_s=kept_bytes() / (1e6 * prices["disk"]["mb_s"]),
        connect_s=node.connect_s,
        begin_s=node.begin_s,
        rest_s=node.rest_s,
    )
    if not by_device:
        return costs
    extraction = 16 / gpu["resnet50: extraction, images/s"]
    device_s = 1 / gpu["resnet50: network alone, images/s"]
    return replace(
        costs, decode_s=extraction, network_s=0.0, device_s=device_s, connect_s=0.0, begin_s=0.0, handed_s=0.0
    )


def kept_bytes() -> float:
    """Of a photo, on the disk of who began the job: features, and what else a run keeps."""
    by_photos = results("limits")["growth: all but extraction, disk_mb"]
    (few, few_mb), (many, many_mb) = list(by_photos.items())[-2:]
    return float(1e6 * (many_mb - few_mb) / (int(many) - int(few)))
