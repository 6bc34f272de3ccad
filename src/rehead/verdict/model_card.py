"""The model card: what a person would publish beside a model. Facts in, Markdown out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def model_card(facts: dict[str, Any], head_note: str, name: str, n_photos: dict[str, int]) -> str:
    """The README.md of a bundle: what a person would publish beside the model."""
    verdict, backbone, recipe = facts["verdict"], facts["backbone"], facts["recipe"]
    top1 = verdict["top1"]
    rows = [_class_row(c) for c in verdict["classes"]]
    partial = (
        "\nExtraction was cut short: the head rests on part of the training photos.\n" if verdict["partial"] else ""
    )
    notes = "".join(f"- {note}\n" for note in verdict["notes"])
    return f"""---
license: other
library_name: rehead
pipeline_tag: image-classification
tags: [image-classification, transfer-learning, onnx]
---

# {name}: {_listing(facts["classes"])}

Names one of {len(facts["classes"])} classes for a photo. Right on {top1["value"]:.1%} of {top1["n"]} held-out photos
(95 % interval {top1["low"]:.1%} to {top1["high"]:.1%}); always naming the most frequent class gets {verdict["majority"]["value"]:.1%}.
{partial}
## Use

```python
import rehead
model = rehead.load("path/to/this/folder")
model.predict("photo.jpg").label
```

or `rehead predict path/to/this/folder photo.jpg`. `model.onnx` takes uint8 pixels (n, {facts["preprocess"]["height"]}, {facts["preprocess"]["width"]}, 3) named `pixels` and
gives `probabilities`, `logits` and `features`; how a picture becomes those pixels stands in `rehead.json`.

## Held-out photos, class by class

| class | photos | precision | recall |
| --- | ---: | ---: | ---: |
{chr(10).join(rows)}

Macro F1 {verdict["macro_f1"]:.3f}, log-loss {verdict["log_loss"]:.3f}.
{chr(10) + notes if notes else ""}
## How it was made

- Photos: {n_photos["train"]} to learn from, {n_photos["held_out"]} held out ({verdict["side"]}), {n_photos["skipped"]} skipped.
- Backbone: {backbone["name"]} ({backbone["architecture"]}), {backbone["origin"]}, licence {backbone["licence"]}, {_what_learned(backbone["learned"])}; weights' SHA-256 `{backbone["weights"][:16]}`.
- Head: {head_note}.
- Picture to square: {facts["preprocess"]["fit"]}. Seed {recipe["seed"]}.
- Made by rehead {facts["versions"]["rehead"]}.

## Limits

It always names one of its classes, whatever the photo shows. The figures hold for photos like the held-out ones; on photos
taken elsewhere, verify it again: `rehead verify path/to/this/folder your_photos/`. The backbone's own licence and the rights
in the photos apply.
"""


def _what_learned(layers: Sequence[str]) -> str:
    return f"frozen up to {layers[0]}; {', '.join(layers)} tuned" if layers else "frozen"


def _class_row(facts: dict[str, Any]) -> str:
    def cell(interval: dict[str, Any] | None) -> str:
        return "–" if interval is None else f"{interval['value']:.1%} ({interval['low']:.1%} to {interval['high']:.1%})"

    label = facts["label"].replace("|", "\\|").replace("\n", " ")
    return f"| {label} | {facts['n']} | {cell(facts['precision'])} | {cell(facts['recall'])} |"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(" ".join(name.split()) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
