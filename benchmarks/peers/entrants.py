"""The peers, each a folder beside this file: a program, what its environment holds, and perhaps a peer.toml.

peer.toml, every key optional: `title`; `modes`, those that it can do; `environment` and `program`, other peers' folders
whose environment, and whose train and predict, it uses; `before`, a script that runs unmeasured first, in the same cache;
`after`, a program that runs unmeasured behind it, on its folder and the one where its table is to be; `refuses`, words by
which a tool says that it cannot do a mode; `first_number`, words with which it tells a first estimate while it works;
`note`, what a reader of the tables must know of it; `charted`, false for one that is in the tables alone. A convert.py,
where there is one, writes the weights of all in the tool's own form, once.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from places import HERE

MODES = ("head", "last", "full")
FIRST = (
    "rehead",
    "rehead-report",
    "rehead-openvino",
    "rehead-int8",
    "rehead-light",
    "rehead-warm",
)  # the others are in the order of the alphabet
LEFT_OUT = "left-out.toml"  # peers that are not measured, each with the reason


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A row of the table. train, predict, before: programs, .py or .sh. environment: the name of a folder of WORK/envs."""

    name: str
    title: str
    environment: str
    requirements: Path
    train: Path
    predict: Path
    modes: tuple[str, ...] = MODES
    before: Path | None = None
    after: Path | None = None
    convert: Path | None = None
    refuses: str | None = None
    first_number: str | None = None
    note: str = ""
    charted: bool = True


def every_peer(here: Path = HERE) -> dict[str, Peer]:
    """The peers by name, rehead first."""
    names = sorted(path.parent.name for path in here.glob("*/train.*"))
    names += [path.parent.name for path in here.glob("*/peer.toml") if path.parent.name not in names]
    ordered = [*(name for name in FIRST if name in names), *sorted(set(names) - set(FIRST))]
    return {name: read_peer(here / name) for name in ordered}


def read_peer(folder: Path) -> Peer:
    """A peer from its folder. Raises ValueError for a peer.toml with unknown keys."""
    path = folder / "peer.toml"
    settings = tomllib.loads(path.read_text()) if path.is_file() else {}
    own, here = settings.pop("program", folder.name), folder.parent
    environment = settings.pop("environment", folder.name)
    before, after = settings.pop("before", None), settings.pop("after", None)
    if unknown := set(settings) - {"title", "modes", "refuses", "first_number", "note", "charted"}:
        raise ValueError(f"{path} has unknown keys: {', '.join(sorted(unknown))}.")
    return Peer(
        name=folder.name,
        title=settings.get("title", folder.name),
        environment=environment,
        requirements=here / environment / "requirements.txt",
        train=_program(folder, here / own, "train"),
        predict=_program(folder, here / own, "predict"),
        modes=tuple(settings.get("modes", MODES)),
        before=folder / before if before else None,
        after=here / own / after if after else None,
        convert=converts if (converts := folder / "convert.py").is_file() else None,
        refuses=settings.get("refuses"),
        first_number=settings.get("first_number"),
        note=settings.get("note", ""),
        charted=settings.get("charted", True),
    )


def left_out(here: Path = HERE) -> dict[str, str]:
    """The peers that are not measured, with the reasons."""
    path = here / LEFT_OUT
    return dict(tomllib.loads(path.read_text())) if path.is_file() else {}


def _program(*places: str | Path) -> Path:
    """The first train.* or predict.* (the last argument) that is in these folders."""
    *folders, name = places
    for folder in folders:
        for kind in (".py", ".sh"):
            if (path := Path(folder) / f"{name}{kind}").is_file():
                return path
    raise ValueError(f"{folders[0]} has neither {name}.py nor {name}.sh.")
