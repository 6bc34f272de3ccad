"""Which layers learn: what a person types, such as `last:2`, resolved against a backbone's layers. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rehead.errors import RecipeError, UnknownLayer, nearest

HEAD, POOL = "head", "pool"
FORMS = "One of: head, all, last:2, last:40%, lora:8, lora:8@last:4, or names of layers: layer3-layer4,head."


@dataclass(frozen=True)
class Stage:
    """What has to be known of a layer: its name, its number of parameters and multiply-adds, and its output's shape.

    linear: how many inputs and outputs its linear layers have, summed; of rank r, adapters have r times that many
    parameters. 0 where none is asked for.
    """

    name: str
    parameters: int
    macs: int
    shape: tuple[int, ...]
    linear: int = 0


def adapters_in(spec: str) -> tuple[int, str] | None:
    """The rank of adapters and which layers have them: "lora:8@last:4" gives (8, "last:4"), "lora:8" (8, "all").

    None for what asks for no adapters. Raises RecipeError when the rank is missing or out of range.
    """
    if spec.partition(":")[0] != "lora":
        return None
    match = re.fullmatch(r"lora:([1-9]\d{0,3})(?:@(.+))?", spec)
    if match is None:
        raise RecipeError(
            what=f"--train {spec!r} names no rank.",
            why="Adapters have a rank from 1 to 9999, and after an @ the layers that have them.",
            fix="For example: --train lora:8, or --train lora:8@last:4",
        )
    return int(match[1]), match[2] or "all"


def check_form(spec: str) -> None:
    """Raises RecipeError for what cannot name layers of any network, before one is loaded."""
    adapters_in(spec)
    inner = spec.partition("@")[2] if spec.startswith("lora:") else spec
    for part in _parts(inner):
        share = re.fullmatch(r"last:(\d+)%", part)
        is_odd = ":" in part and not re.fullmatch(r"last:\d+%?", part)
        if is_odd or part == "last:0" or (share and not 1 <= int(share[1]) <= 100):
            raise RecipeError(what=f"--train {spec} is out of range or of no known form.", fix=FORMS)
    if not _parts(inner) and inner == spec:
        raise RecipeError(what=f"--train {spec!r} names no layer.", fix=FORMS)


def names_in(spec: str) -> set[str]:
    """The names that may be of layers in what a person typed: those of a range are its ends."""
    names: set[str] = set()
    for part in _parts(spec.partition("@")[2] if spec.startswith("lora:") else spec):
        first, dash, last = part.partition("-")
        names |= {part, first, _end_of(first, last)} if dash else {part}
    return {name for name in names if name not in (HEAD, "all") and ":" not in name}


def layers_that_learn(spec: str, stages: Sequence[Stage]) -> tuple[str, ...]:
    """The names of the layers below the head that learn, in order; () for the head alone.

    spec: "head"; "all"; "last:2", the last two layers with parameters below the head; "last:30%", the last ones with at
    most that share of the network's multiply-adds, one at least; or names and ranges such as "layer3-layer4,head" and
    "blocks.10-11"; or one of these behind "lora:8@", of which those with linear layers learn, by adapters. The head always
    learns, and so do weights between the last layer and the head (`pool`: a norm, or VGG's dense layers) where the layer
    before them does. stages: in order of data flow. Raises RecipeError, and UnknownLayer, which lists the layers.
    """
    check_form(spec)
    if adapters := adapters_in(spec):
        return _with_adapters(spec, layers_that_learn(adapters[1], stages), stages)
    body = [stage for stage in stages if stage.name not in (HEAD, POOL) and stage.parameters]
    names = [stage.name for stage in body]
    between = tuple(stage.name for stage in stages if stage.name == POOL and stage.parameters)
    parts = [part for part in _parts(spec) if part != HEAD]
    if not parts:
        return ()
    if parts == ["all"]:
        return (*names, *between)
    if len(parts) == 1 and (match := re.fullmatch(r"last:(\d+)(%?)", parts[0])):
        n = _last_share(body, int(match[1]) / 100) if match[2] else int(match[1])
        if n < 1 or n > len(body):
            raise RecipeError(
                what=f"--train {spec} is out of range.",
                why=f"There are {len(body)} layers below the head.",
                fix=_listed(names),
            )
        return (*names[-n:], *between)
    chosen: set[str] = set()
    for part in parts:
        chosen.update(_named(part, [stage.name for stage in stages]))
    if names and names[-1] in chosen:
        chosen.update(between)
    learning = tuple(name for name in (*names, *between) if name in chosen)
    if not learning and HEAD not in _parts(spec):
        raise RecipeError(
            what=f"Nothing is left to train: {spec} has no parameters.",
            why=f"Layers that have some are: {', '.join(names)}.",
            fix="Name some of them, such as --train last:1, or --train head for the head alone.",
        )
    return learning


def _with_adapters(spec: str, chosen: tuple[str, ...], stages: Sequence[Stage]) -> tuple[str, ...]:
    """Those of the chosen layers that have linear layers. Raises RecipeError when there is none."""
    able = [stage.name for stage in stages if stage.linear]
    learning = tuple(name for name in chosen if name in able)
    if not learning:
        raise RecipeError(
            what=f"--train {spec} finds no attention or linear layer to adapt.",
            why=f"This backbone has them in: {', '.join(able)}."
            if able
            else "This backbone has none below its head: it is made of convolutions.",
            fix=f"For example: --train {spec.partition('@')[0]}@{able[-1]}"
            if able
            else "Tune layers themselves, such as --train last:2, or choose a transformer: rehead backbones 'vit*'",
        )
    return learning


def _named(part: str, names: list[str]) -> list[str]:
    """One name, or the first to the last of "a-b", where b may be its end alone: "blocks.10-11"."""
    if part in names:
        return [part]
    first, dash, last = part.partition("-")
    if dash and first in names:
        full = last if last in names else _end_of(first, last)
        if full in names and names.index(first) <= names.index(full):
            return names[names.index(first) : names.index(full) + 1]
        if full in names:
            raise RecipeError(
                what=f"{part} runs backwards.",
                why=f"The layers are, in order: {', '.join(names)}.",
                fix=f"{full}-{first}",
            )
    if whole := next((name for name in names if part.startswith(f"{name}.")), None):
        raise UnknownLayer(
            what=f"{part!r} cannot be trained apart from the rest of {whole}.",
            why="The network can only be cut where one tensor crosses, and layers are looked for four names deep.",
            fix=f"Name {whole}, or one of what `rehead layers BACKBONE --depth 2` lists; `rehead.fit` trains any part.",
        )
    raise UnknownLayer(
        what=f"No layer is called {part!r}.",
        why=f"This backbone has, in order: {', '.join(names)}.",
        fix=nearest(part, names) or FORMS,
    )


def _end_of(first: str, last: str) -> str:
    """The last layer of a range: "blocks.10" and "11" give "blocks.11", "layer3" and "4" "layer4"; a full name is itself."""
    if not last.isdigit():
        return last
    return f"{first.rpartition('.')[0]}.{last}" if "." in first else re.sub(r"\d+$", "", first) + last


def _parts(spec: str) -> list[str]:
    return [part for part in (part.strip() for part in spec.split(",")) if part]


def _last_share(body: Sequence[Stage], share: float) -> int:
    """How many of the last layers have at most this share of all multiply-adds; at least one."""
    total, n, sofar = sum(stage.macs for stage in body), 0, 0
    for stage in reversed(body):
        sofar += stage.macs
        if sofar > share * total and n:
            break
        n += 1
    return n


def _listed(names: Sequence[str]) -> str:
    return f"They are: {', '.join(names)}."
