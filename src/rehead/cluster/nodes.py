"""The nodes of a Ray cluster: how much they have, and whether they would compute what this machine would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from rehead.errors import ClusterError, counted

LOCAL = "local"  # the address of a cluster that is begun here
ROOM_S = 60.0  # without room for a process, after which it is told what is waited for
LOOK_S = 0.5  # between two looks at what processes have said, or at whether they are to stop
ASK_S = 120.0  # for a node to say what it has: a worker is begun there, and imports
SAME = ("rehead", "onnxruntime", "numpy", "pillow")  # what decides a feature's bits
BESIDE = ("openvino", "pillow-heif")  # the same, where this machine has them
LEARNING = ("torch", "timm")  # what decides what layers learn, besides


@dataclass(frozen=True)
class Node:
    """A machine of a cluster. cores, gpus: that Ray may use there."""

    id: str
    address: str
    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Cluster:
    """What was connected to. address: as it was asked for. nodes: with a core at least, those there were at the beginning."""

    address: str
    nodes: tuple[Node, ...]

    @property
    def about(self) -> str:
        """'2 nodes, 16 cores (ray://head:10001)'."""
        cores = sum(node.cores for node in self.nodes)
        return f"{counted(len(self.nodes), 'node')}, {counted(cores, 'core')} ({self.address})"


@dataclass(frozen=True)
class Room:
    """How many processes a cluster has room for, and what each of them is given."""

    n: int
    cores: int
    gpus: int

    @property
    def about(self) -> str:
        """What one process is given: '1 GPU', '4 cores of one node'."""
        return counted(self.gpus, "GPU") if self.gpus else f"{counted(self.cores, 'core')} of one node"


def nodes_there() -> Iterator[Node]:
    """Those of the cluster that this process is connected to."""
    import ray

    for node in ray.nodes():
        cores = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
        if cores:
            yield Node(node["NodeID"], node["NodeManagerAddress"], cores, int(node["Resources"].get("GPU", 0)))


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of these libraries on the machine that runs this, "" for what is not there. How one was built is left out of it."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _asked(nodes: tuple[Node, ...], names: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """The versions on each node, by its address."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        asking = ray.remote(versions).options(num_cpus=0, scheduling_strategy=there, max_retries=1)
        asked[asking.remote(names)] = node
    answers: dict[str, Mapping[str, str]] = {}
    for reference, node in asked.items():
        try:
            answers[node.address] = ray.get(reference, timeout=ASK_S)
        except ray.exceptions.RayError as error:
            if "No module named 'rehead'" in str(error):
                answers[node.address] = {}
                continue
            raise ClusterError(
                what=f"The node {node.address} of the Ray cluster does not work.",
                why=str(error).strip().splitlines()[-1],
                fix="Look at it with `ray status`; take it out of the cluster, or begin it anew.",
            ) from error
    return answers


def check_same(cluster: Cluster, names: Sequence[str]) -> None:
    """Raises ClusterError where a node has not these libraries as this machine has them."""
    if cluster.address != LOCAL:
        compare(cluster.address, _asked((*cluster.nodes, *beside_driver(cluster.nodes)), names), versions(names))


def beside_driver(nodes: Sequence[Node]) -> Iterator[Node]:
    """The node that this process is on, or is connected to, where it is none of these, as a head without a core: actors that
    this process talks to are there."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    if all(node.id != here for node in nodes):
        yield from (Node(here, node["NodeManagerAddress"], 0) for node in ray.nodes() if node["NodeID"] == here)


def check_here(address: str, ours: Mapping[str, str]) -> None:
    """Raises ClusterError where the node that runs this has not these versions: it may have joined after all were asked."""
    import ray

    compare(address, {ray.util.get_node_ip_address(): versions(tuple(ours))}, ours)


def compare(address: str, answers: Mapping[str, Mapping[str, str]], ours: Mapping[str, str]) -> None:
    """Raises ClusterError where a node has not the versions that this machine has: what it computes would be something else."""
    names = [name for name in ours if ours[name]]
    for node, theirs in answers.items():
        lacking = [name for name in names if not theirs.get(name)]
        if lacking:
            raise ClusterError(
                what=f"The node {node} of the Ray cluster {address} has no {', '.join(lacking)}.",
                fix=f"Install on every node what is here: pip install {' '.join(lacking)}",
            )
        if other := [name for name in names if theirs[name] != ours[name]]:
            name = other[0]
            raise ClusterError(
                what=f"The node {node} has {name} {theirs[name]}, and this machine {ours[name]}.",
                why="What is computed would depend on where it is.",
                fix=f"Install one version everywhere: pip install {name}=={ours[name]}",
            )
