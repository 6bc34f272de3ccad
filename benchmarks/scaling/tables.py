"""docs/scale.md from what was measured and from prices: what stands between its markers is written here, and only there."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measured import ROOT

from scaling.calibration import costs_at_scale, kept_bytes, predicted, results
from scaling.simulation import Outcome, Place, simulate

PRICES = Path(__file__).with_name("prices.toml")
DOCUMENT = ROOT / "docs" / "scale.md"
WORDS = {
    "alone": "one process",
    "far": "one process, each read 150 ms late",
    "1x2 far": "1 node of 2 cores, each read 150 ms late",
    "local": "`--ray local`",
    "1x1": "1 node of 1 core",
    "1x2": "1 node of 2 cores",
    "2x1": "2 nodes of 1 core",
}
HELD_UP_BY = {
    "connect_s": "beginning", "listed_s": "listing", "lists_s": "the driver's lists", "identify_s": "digests",
    "wait_s": "waiting for the bucket", "requests_s": "the bucket's requests", "photo_bytes": "links to the bucket",
    "begin_s": "beginning", "handed_s": "handing out parts", "decode_s": "decoding", "network_s": "the network on CPUs",
    "device_s": "the network on the GPU", "back_bytes": "the driver's link", "driver_s": "features through the driver",
    "disk_s": "features on disk", "look_s": "near copies",
    "compare_s": "comparing all photos", "solve_s": "solving", "rest_s": "the rest",
}  # fmt: skip
STEP_NAMES = ("today", "without it", "without both", "without the three", "without the four")
STEPS = len(STEP_NAMES)
MONTH_S = 30 * 24 * 3600
READS = 2  # of each photo: its digest with what near copies are told by, and its features
COLUMNS = (
    "machines",
    "time",
    "dollars",
    "held up by",
    "if that took no time",
    "then held up by",
    "the driver's memory, GB",
)


@dataclass(frozen=True)
class Row:
    """A job on some machines. then: the same where `first` takes no time. needs_gb: memory of the driver."""

    machines: str
    outcome: Outcome
    then: Outcome
    dollars: float
    needs_gb: float
    has_gb: float


def main(prices: Path = PRICES, document: Path = DOCUMENT) -> None:
    """Writes the sections of the document."""
    text = document.read_text(encoding="utf-8")
    document.write_text(written(text, results("cost"), tomllib.loads(prices.read_text())), encoding="utf-8")


def written(text: str, facts: dict[str, Any], prices: dict[str, Any]) -> str:
    """The document with its sections as they follow from these facts and prices."""
    tables = [table(n, rows(n, facts, prices, nodes)) for n, nodes in sizes(prices)]
    sections = {
        "checked": checked(predicted(facts["cases"])),
        "tables": "\n\n".join([*tables, leaving(facts, prices)]),
        "ladder": ladder(facts, prices),
        "costs": what_is_taken(facts, prices),
    }
    for name, section in sections.items():
        text = between(text, name, section)
    return text


def between(text: str, name: str, section: str) -> str:
    """The document with what stands between two markers replaced. Raises ValueError where they are not there once each."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"The document needs {begin} and, after it, {end}, once each.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}"


def sizes(prices: dict[str, Any]) -> list[tuple[int, list[int]]]:
    return list(zip(prices["job"]["photos"], prices["job"]["nodes"], strict=True))


def rows(n: int, facts: dict[str, Any], prices: dict[str, Any], nodes: list[int]) -> list[Row]:
    """Each instance type, so many of it; those with a device alone."""
    return [
        row_of(n, facts, prices, instance, count)
        for instance in prices["instance"]
        for count in ([1] if instance.get("gpus") else nodes)
    ]


def row_of(n: int, facts: dict[str, Any], prices: dict[str, Any], instance: dict[str, Any], nodes: int) -> Row:
    costs = costs_at_scale(facts, prices, by_device=bool(instance.get("gpus")))
    place = Place(
        nodes=nodes,
        cores=instance["vcpus"],
        gbit_s=instance["gbit_s"],
        by_ray=nodes > 1,
        devices=instance.get("gpus", 0),
    )
    outcome = simulate(n, place, costs)
    then = simulate(n, place, replace(costs, **{outcome.held_up_by: 0.0}))
    machines = nodes + (1 if nodes > 1 else 0)  # one of them begins the job, and keeps what comes back
    return Row(
        machines=f"{nodes} x {instance['name']}" + (" and 1" if nodes > 1 else ""),
        outcome=outcome,
        then=then,
        dollars=dollars(n, outcome.total, machines * instance["dollars"], prices),
        needs_gb=n * facts["lists, a photo"]["bytes"] / 1e9,
        has_gb=instance["memory_gb"],
    )


def ladder(facts: dict[str, Any], prices: dict[str, Any]) -> str:
    """What holds jobs up, one thing after the other, each taken to take no time once it was named; on most nodes of a type."""
    instance = next(one for one in prices["instance"] if one["name"] == prices["job"]["ladder"])
    columns = []
    for n, nodes in sizes(prices):
        place = Place(nodes=nodes[-1], cores=instance["vcpus"], gbit_s=instance["gbit_s"])
        costs, cells = costs_at_scale(facts, prices), [f"{in_words(n)} on {nodes[-1]} x {instance['name']}"]
        for _ in range(STEPS):
            outcome = simulate(n, place, costs)
            cells.append(f"{duration(outcome.total)}: {HELD_UP_BY[outcome.held_up_by]}")
            costs = replace(costs, **{outcome.held_up_by: 0.0})
        columns.append(cells)
    lines = ["| " + " | ".join(row) + " |" for row in zip(["", *STEP_NAMES], *columns, strict=True)]
    return "\n".join([lines[0], "| --- |" + " --- |" * len(columns), *lines[1:]])


def dollars(n: int, seconds: float, an_hour: float, prices: dict[str, Any]) -> float:
    """Of machines, requests, and the driver's disk for as long as the job takes."""
    bucket = prices["bucket"]
    requests = READS * n * bucket["dollars_get"] + n / bucket["page"] * bucket["dollars_list"]
    disk = n * kept_bytes() / 1e9 * prices["disk"]["dollars_gb_month"] * seconds / MONTH_S
    return an_hour * seconds / 3600 + requests + disk


def table(n: int, found: list[Row]) -> str:
    lines = [
        f"### {in_words(n)} photos",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for row in found:
        needs = f"{row.needs_gb:,.1f} of {row.has_gb}" + ("" if row.needs_gb <= row.has_gb else ": **no**")
        cells = (
            row.machines, duration(row.outcome.total), f"{row.dollars:,.2f}" if row.dollars < 100 else f"{row.dollars:,.0f}",
            HELD_UP_BY[row.outcome.held_up_by], duration(row.then.total), HELD_UP_BY[row.then.held_up_by], needs,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def leaving(facts: dict[str, Any], prices: dict[str, Any]) -> str:
    gigabytes = 1e6 * costs_at_scale(facts, prices).photo_bytes / 1e9
    cost = gigabytes * prices["bucket"]["dollars_gb_out"]
    return (
        f"Dollars are for machines, requests and the driver's disk. A million photos are {gigabytes:.0f} GB: where they "
        f"have to leave the bucket's region or its provider, {cost:.2f} dollars come to it, each time that they are read."
    )


def checked(found: list[dict[str, Any]]) -> str:
    lines = ["| where | photos | extraction: predicted, measured s | the job: predicted, measured s | error |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for row in found:
        extraction = f"{row['extract, predicted s']}, {row['extract, measured s']}"
        job = f"{row['predicted s']}, {row['measured s']}"
        lines.append(
            f"| {WORDS[row['where']]} | {row['photos']:,} | {extraction} | {job} | {round(100 * row['error']):+d} % |"
        )
    return "\n".join(lines)


def what_is_taken(facts: dict[str, Any], prices: dict[str, Any]) -> str:
    """What a photo costs, and which script or list says so."""
    costs = costs_at_scale(facts, prices)
    by_device = costs_at_scale(facts, prices, by_device=True)
    driver, lists_bytes = facts["driver"], facts["lists, a photo"]["bytes"]
    handed = f"{ms(costs.handed_s)} of the driver" if costs.handed_s else "too little to be seen"
    most, shared = driver["photos for a second of CPU"], driver["photos/s"]
    a_core = costs.decode_s + costs.network_s
    ours, list_of = "`cost.py`", "a vendor's list, see `prices.toml`"
    taken = (
        (f"a page of the bucket's list, {prices['bucket']['page']:,} names", ms(prices["bucket"]["first_byte_s"]), list_of),
        ("the first byte of a photo", ms(costs.wait_s), list_of),
        ("requests that the bucket takes", f"{1 / costs.requests_s:,.0f} a second", f"{list_of}; for each class folder"),
        ("bytes of a photo", f"{costs.photo_bytes:,.0f}",
         "`prices.toml`" if "bytes_of_a_photo" in prices["job"] else f"{ours}: the cats and dogs"),
        ("the driver's lists", f"{ms(costs.lists_s)}, {lists_bytes:,.0f} bytes", f"{ours}: 300,000 and a million photos"),
        ("its digest", f"{ms(costs.identify_s)} of a core", f"{ours}: files, by Ray on two cores"),
        ("handing it to Ray", handed, f"{ours}: jobs of 20,000 and 160,000 photos"),
        ("decoding", f"{ms(costs.decode_s)} of a core", "`limits.py`, and what `cluster.py` keeps of it"),
        ("EfficientNet-Lite0", f"{ms(costs.network_s)} of a core", "the same"),
        ("decoding for a GPU", f"{ms(by_device.decode_s)} of a core", "`gpu.py`: extraction on 16 cores"),
        ("ResNet-50 on a GPU", ms(by_device.device_s), "`gpu.py`: the network alone"),
        ("taking its features back", f"{ms(costs.driver_s)} of the driver",
         f"{ours}: {most:,.0f} photos a second of its CPU; {shared:,.0f} a second where idle workers shared two cores with it"),
        ("bytes that come back", f"{costs.back_bytes:,.0f}", ours),
        ("bytes on the driver's disk", f"{kept_bytes():,.0f}", "`limits.py`: between 30,000 and 100,000 photos"),
        ("the driver's disk", f"{prices['disk']['mb_s']} MB/s", list_of),
        ("looking for near copies", f"{ms(costs.look_s)} of a core", f"{ours}: files, two cores"),
        ("comparing it with others", f"{ms(costs.compare_s)} of a core of the driver", f"{ours}: as the driver's lists"),
        ("solving the head", ms(costs.solve_s), f"{ours}: between 30,000 and 100,000 photos, two cores"),
        ("what does not grow", f"{costs.connect_s + costs.begin_s + costs.rest_s:.0f} s a job", f"{ours}: one node"),
    )  # fmt: skip
    lines = ["| what a photo costs | is taken to be | as measured by, or said by |", "| --- | ---: | --- |"]
    rows = [f"| {what} | {value} | {source} |" for what, value, source in taken]
    cores = f"{shared * a_core:.0f} to {most * a_core:.0f} cores"
    busy = f"The driver takes features back as fast as {cores} decode and compute them."
    return "\n".join([*lines, *rows, "", busy])


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def duration(seconds: float) -> str:
    """Two digits or more that count: 45 s, 12 min, 3.4 h, 26 days, 12 years."""
    for unit, size in (("years", 365 * 86_400), ("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{seconds:.0f} s"


def in_words(n: int) -> str:
    return f"{n // 10**9} billion" if n >= 10**9 else f"{n // 10**6} million" if n >= 10**6 else f"{n:,}"
