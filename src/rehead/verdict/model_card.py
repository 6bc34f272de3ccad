"""The model card: what a person would publish beside a model. Facts in, Markdown out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rehead.errors import counted, escaped
from rehead.verdict.card_parts import card_parts
from rehead.verdict.metrics import DRAWN

SIDES = {DRAWN: "drawn by rehead", "valid": "the valid side they came with", "test": "the test side they came with"}


def model_card(facts: dict[str, Any], head_note: str, name: str, n_photos: dict[str, int], *, n_shown: int = 0) -> str:
    """The README.md of a bundle: what a person would publish beside the model. n_photos: to "train" on, "held_out", "skipped" for
    any reason, and "unreadable" of those that were to be used. n_shown: photos of which it has pictures. Bytes in names that are
    no UTF-8 are escaped."""
    verdict, backbone, recipe = facts["verdict"], facts["backbone"], facts["recipe"]
    parts = card_parts(facts)
    partial = f"\n{_why_partial(recipe.get('limit'), n_photos)}\n" if verdict["partial"] else ""
    shown = (
        f"\nThe bundle shows {counted(n_shown, 'photo')} that it learned from, as small pictures in `neighbours.jpg`: whoever gets it sees them.\n"
        if n_shown
        else ""
    )
    notes = "".join(f"- {note}\n" for note in verdict["notes"])
    return escaped(f"""---
license: other
library_name: rehead
pipeline_tag: {parts.tag}
tags: [{parts.tag}, transfer-learning, onnx]
---

# {name}: {parts.about}

{parts.summary}
{partial}
## Use

```python
import rehead
model = rehead.load("path/to/this/folder")
model.predict("photo.jpg").{parts.answer}
```

or `rehead predict path/to/this/folder photo.jpg`. `model.onnx` takes uint8 pixels (n, {facts["preprocess"]["height"]}, {facts["preprocess"]["width"]}, 3) named `pixels` and
gives {parts.outputs} and `features`; how a picture becomes those pixels stands in `rehead.json`.

{parts.table}
{chr(10) + notes if notes else ""}
## How it was made

- Photos: {n_photos["train"]} to learn from, {n_photos["held_out"]} held out ({SIDES.get(verdict["side"], verdict["side"])}), {n_photos["skipped"]} skipped.
- Backbone: {backbone["name"]} ({backbone["architecture"]}), {backbone["origin"]}, licence {backbone["licence"]}, {_what_learned(backbone["learned"])}{_in_8_bits(backbone)}; weights' SHA-256 `{backbone["weights"][:16]}`.
- Head: {head_note}.
- Picture to square: {facts["preprocess"]["fit"]}. Seed {recipe["seed"]}.
- Made by rehead {facts["versions"]["rehead"]}.

## Limits

{parts.limits} The figures hold for photos like the held-out ones; on photos
taken elsewhere, verify it again: `rehead verify path/to/this/folder your_photos/`. The backbone's own licence and the rights
in the photos apply.
{shown}""")


def _why_partial(limit: int | None, n_photos: dict[str, int]) -> str:
    """What a reader must know of a model that rests on part of the photos: that was wanted, or time was up."""
    if limit is not None and sum(n_photos[which] for which in ("train", "held_out", "unreadable")) >= limit:
        return f"It rests on part of the photos that were there: {counted(limit, 'photo')} at most were to be used."
    return "Extraction was cut short: the head rests on part of the training photos."


def _in_8_bits(backbone: dict[str, Any]) -> str:
    if not backbone.get("quantized"):
        return ""
    kept = backbone.get("int8_cosine")
    return ", in 8 bits" + (
        "" if kept is None else f" (features have a mean cosine of {kept:.3f} with those in float32)"
    )


def _what_learned(layers: Sequence[str]) -> str:
    return f"frozen up to {layers[0]}; {', '.join(layers)} tuned" if layers else "frozen"
