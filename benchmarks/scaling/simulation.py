"""A job's phases as the code does them today, simulated: what is worked on at once waits for cores, links and the driver.

    connect   Ray is begun or reached
    list      pages of the bucket's list, one after the other; then the driver makes its own lists
    read      every photo is fetched and given a digest, on all nodes; one in a bucket is looked at for near copies then
    begin     parts are handed to Ray, actors begin; anew for each four million photos
    extract   each core of a node has a part: it waits for the first of its photos, then it decodes photos and runs the network
              while others are fetched. One machine fetches photos ahead. Features go back to the driver, one part after the
              other, and onto its disk
    look      photos that are files are looked at for near copies, by the driver alone; it compares what they are told by
    solve     the head, on the driver
    rest      the verdict, the bundle

A resource is called as what it costs, such as `driver_s`. Its seconds are those in which all of it was busy: what has the most
in a phase holds the phase up. Cores of a
cluster that work alike are simulated as some few, and parts as larger ones, so that a simulation takes a second at any size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import simpy

LEAST, MOST, PARTS_A_CORE = 32, 256, 32  # photos of a part, as `cluster/pool.py` has it
HANDED = 4_000_000  # photos that Ray is handed at once, as `cluster/computing.py` has it
TASKS, MOST_TASKS = 2, 256  # of reading, a core and in all, as there
READERS, CHUNK = 16, 32  # photos that a core reads at once, and those of a task of reading, as `data/far.py` has it
FAR_A_CORE, MOST_FAR = 16, 512  # photos that one machine waits for at once, as there
MAX_WORKERS = 16  # of the engine on one machine, as `features/engines.py` has it
FEEDERS = 4  # threads beyond the cores that feed a GPU, as `features/torch_engine.py` has it
BATCH = 4  # photos, of the engine where there is no cluster
MOST_LANES = 32  # that are simulated; each stands for some cores that work alike
MOST_PARTS = 20_000  # that are simulated as they are
PARTS_A_LANE = 20  # where parts are made larger
ORDERS = 32  # of hashes, each by a core, as `auditing/hashes.py` has it
SINGLE = ("requests_s", "device_s", "back_bytes", "driver_s", "disk_s")  # what there is one of
ALMOST = 1e-9


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job runs. cores: of a node. host_cores: of the machine that nodes are simulated on, 0 where each has its own.
    gbit_s: of a node's link. by_ray: whether features go through a driver. devices: GPUs."""

    nodes: int = 1
    cores: int
    host_cores: int = 0
    gbit_s: float = math.inf
    by_ray: bool = True
    devices: int = 0

    @property
    def lanes(self) -> int:
        return self.nodes * self.cores

    @property
    def far(self) -> int:
        """Photos in a bucket that one machine waits for at once."""
        return min(MOST_FAR, FAR_A_CORE * self.cores)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds and bytes, of a photo where nothing else is said. Nothing by default: a test says what it is about.

    decode_s, network_s, identify_s, look_s, compare_s: of a core. device_s: of a GPU. driver_s: to take features back.
    lists_s: of the driver's own lists. handed_s: to hand it to Ray. wait_s: for the first byte of a request. requests_s: the
    shortest time between two that the bucket allows. solve_s: of each photo, for the head.
    """

    decode_s: float = 0.0
    network_s: float = 0.0
    device_s: float = 0.0
    identify_s: float = 0.0
    look_s: float = 0.0
    compare_s: float = 0.0
    driver_s: float = 0.0
    lists_s: float = 0.0
    handed_s: float = 0.0
    solve_s: float = 0.0
    listed_s: float = 0.0
    wait_s: float = 0.0
    requests_s: float = 0.0
    photo_bytes: float = 0.0
    back_bytes: float = 0.0
    disk_s: float = 0.0
    connect_s: float = 0.0
    begin_s: float = 0.0
    rest_s: float = 0.0


@dataclass
class Outcome:
    """seconds: by phase. busy: seconds by phase and resource. photos: how many features came back."""

    seconds: dict[str, float] = field(default_factory=dict)
    busy: dict[str, dict[str, float]] = field(default_factory=dict)
    photos: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def held_up_by(self) -> str:
        """The resource that holds up the phases which take the most time."""
        found: Counter[str] = Counter()
        for phase, busy in self.busy.items():
            if busy:
                found[max(busy, key=lambda name: busy[name])] += self.seconds[phase]
        return found.most_common(1)[0][0]


def part_of(n: int, cores: int) -> int:
    """The photos of a part, of `n` on so many cores."""
    return min(MOST, max(LEAST, n // (PARTS_A_CORE * max(1, cores))))


def simulate(n: int, place: Place, costs: Costs) -> Outcome:
    """A job of `n` photos."""
    outcome = Outcome()

    def alone(phase: str, **work: float) -> None:
        outcome.seconds[phase], outcome.busy[phase] = sum(work.values()), {what: s for what, s in work.items() if s}

    alone("connect", connect_s=costs.connect_s)
    alone("list", listed_s=n * costs.listed_s, lists_s=n * costs.lists_s)
    reads = READERS if place.by_ray else 1
    calls = min(MOST_TASKS, TASKS * place.lanes) if place.by_ray else place.far
    is_far = bool(costs.wait_s or costs.photo_bytes)
    work = {"identify_s": costs.identify_s} | ({"look_s": costs.look_s} if is_far else {})
    part = CHUNK if place.by_ray else BATCH
    read = _Phase(n, place, costs, work, calls=calls, reads_at_once=reads, part=part, goes_back=False)
    outcome.seconds["read"], outcome.busy["read"] = read.run()
    times = math.ceil(n / HANDED) if place.by_ray else 1
    alone("begin", begin_s=times * costs.begin_s, handed_s=n * costs.handed_s)
    calls = place.lanes if place.by_ray else place.cores + FEEDERS if place.devices else min(place.cores, MAX_WORKERS)
    network_s = costs.network_s * min(1, calls / place.lanes)  # a call has all cores that are its own
    work = {"decode_s": costs.decode_s, "network_s": network_s}
    is_ahead, part = costs.wait_s > 0 and not place.by_ray, part_of(n, place.lanes) if place.by_ray else BATCH
    extract = _Phase(
        n, place, costs, work, calls=calls, reads_at_once=reads, part=part, is_ahead=is_ahead, is_beside=place.by_ray
    )
    outcome.seconds["extract"], outcome.busy["extract"] = extract.run()
    outcome.photos = extract.done
    here = replace(place, nodes=1, cores=place.host_cores or place.cores, by_ray=False)
    n_looked = n if costs.look_s and not is_far else 0
    looked = _Phase(
        n_looked, here, costs, {"look_s": costs.look_s}, calls=here.cores, reads_at_once=1, part=BATCH, goes_back=False
    )
    outcome.seconds["look"], outcome.busy["look"] = looked.run()
    alone("compare", compare_s=n * costs.compare_s / min(here.cores, ORDERS))
    alone("solve", solve_s=n * costs.solve_s)
    alone("rest", rest_s=costs.rest_s)
    return outcome


class _Phase:
    """Photos that are fetched and worked on by many cores at once."""

    def __init__(
        self,
        n: int,
        place: Place,
        costs: Costs,
        work: dict[str, float],
        *,
        reads_at_once: int,
        calls: int,
        part: int = CHUNK,
        goes_back: bool = True,
        is_ahead: bool = False,
        is_beside: bool = False,
    ) -> None:
        """calls: that are under way at once. part: photos of one. is_ahead: whether photos are fetched by threads of their own,
        before they are asked for. is_beside: whether those of a part are fetched while others of it are worked on."""
        self.env = simpy.Environment()
        self._n, self._place, self._costs, self._work = n, place, costs, work
        self._reads, self._goes_back = reads_at_once, goes_back
        self._lanes = min(calls, MOST_LANES)
        self._calls_a_lane = calls / self._lanes
        self._part = self._real_part = part
        self._beside_s = sum(work.values()) if is_beside else 0.0
        if calls > MOST_LANES or n > MOST_PARTS * self._part:
            self._part = max(self._part, math.ceil(n / (self._lanes * PARTS_A_LANE)))
        of = min(self._lanes, max(1, round(self._lanes * place.lanes / calls)))
        self._cores = simpy.Resource(self.env, min(of, place.host_cores or of))
        self._single = {name: simpy.Resource(self.env, 1) for name in SINGLE}
        self._links = [simpy.Resource(self.env, 1) for _ in range(self._lanes)]
        self._busy: Counter[str] = Counter()
        self._left = n
        held = max(4 * place.far, self._part * self._lanes)
        self._fetched = simpy.Container(self.env, capacity=max(held, 1)) if is_ahead else None
        self.done = 0

    def run(self) -> tuple[float, dict[str, float]]:
        """Seconds, and those in which each resource was busy."""
        for lane in range(self._lanes):
            self.env.process(self._lane(lane))
            if self._fetched is not None:
                self.env.process(self._ahead(lane, self._n // self._lanes + (lane < self._n % self._lanes)))
        self.env.run()
        assert self.done == self._n
        return self.env.now, {name: seconds for name, seconds in self._busy.items() if seconds > ALMOST}

    def _ahead(self, lane: int, n: int) -> Generator[Any, Any, None]:
        """A share of the photos, fetched by a share of the threads that do nothing else."""
        assert self._fetched is not None
        while n:
            some = min(self._part, n)
            n -= some
            yield from self._fetch(lane, some, self._place.far / self._lanes)
            yield self._fetched.put(some)

    def _fetch(self, lane: int, n: int, at_once: float) -> Generator[Any, Any, None]:
        """`n` photos, so many at once."""
        costs, place = self._costs, self._place
        link_s = 8 * costs.photo_bytes / (place.gbit_s * 1e9) / (place.nodes / self._lanes)
        yield from self._one("requests_s", n * costs.requests_s)
        yield from self._held("photo_bytes", self._links[lane], n * link_s, self._lanes)
        if costs.wait_s:
            seconds = n * costs.wait_s / at_once
            if self._beside_s:
                each = n / self._calls_a_lane
                n_parts = max(1.0, each / self._real_part)
                seconds = n_parts * costs.wait_s + max(0.0, seconds - each * self._beside_s)
            self._busy["wait_s"] += seconds / self._lanes
            yield self.env.timeout(seconds)

    def _lane(self, lane: int) -> Generator[Any, Any, None]:
        k = self._calls_a_lane
        while self._left:
            n = min(self._part, self._left)
            self._left -= n
            if self._fetched is None:
                yield from self._fetch(lane, n, self._reads * k)
            else:
                yield self._fetched.get(n)
            for name, seconds in self._work.items():
                yield from self._held(name, self._cores, n * seconds / k, self._cores.capacity)
            self.env.process(self._back(n))

    def _back(self, n: int) -> Generator[Any, Any, None]:
        """Its features, on the way to the driver's disk."""
        if self._goes_back:
            yield from self._one("device_s", n * self._costs.device_s / max(1, self._place.devices))
            if self._place.by_ray:
                yield from self._one("back_bytes", 8 * n * self._costs.back_bytes / (self._place.gbit_s * 1e9))
                yield from self._one("driver_s", n * self._costs.driver_s)
            yield from self._one("disk_s", n * self._costs.disk_s)
        self.done += n

    def _one(self, name: str, seconds: float) -> Generator[Any, Any, None]:
        yield from self._held(name, self._single[name], seconds, 1)

    def _held(self, name: str, resource: simpy.Resource, seconds: float, of: int) -> Generator[Any, Any, None]:
        """The resource for so long. of: how many there are of it."""
        if seconds <= 0:
            return
        with resource.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
        self._busy[name] += seconds / of
