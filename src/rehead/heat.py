"""Where a model looks: for a picture and a class, how much each place speaks for it.

Where the features are the mean of a map over its places, the head can be asked at each place alone: a class activation
map (Zhou et al. 2016), exact for a linear head, where its sum is the logit without the bias; for an MLP its gradient there
takes the place of its weights, which is Grad-CAM (Selvaraju et al. 2017). A bundle has that map, and nothing but it is
needed. Other networks are asked by Captum: by Grad-CAM where the backbone was frozen and can be loaded, else by hiding a
part of the picture at a time (occlusion, Zeiler and Fergus 2014).
"""

from __future__ import annotations

import importlib.util
import math
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.ambient import own_settings
from rehead.bundle import Head
from rehead.bundle_facts import AGAIN
from rehead.bundle_head import read_head
from rehead.durable import replaced_file
from rehead.errors import BackboneError, BundleError, MissingExtra, RecipeError, ReheadError, nearest
from rehead.predict import Model, Picture, load

if TYPE_CHECKING:
    import torch

CAM, GRAD_CAM, OCCLUSION = "class activation map", "Grad-CAM", "occlusion"
# Arguments of timm that say where weights come from
FROM_ELSEWHERE = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
N_WINDOWS = 7  # that are hidden one at a time along each side: as fine as the last maps of most networks
SHOWN_PIXELS = 448  # the shorter side of a picture that is written, at least
OPACITY = 0.65  # of the strongest place
STOPS = (0.0, 0.25, 0.5, 0.75, 1.0)
COLOURS = (
    (0, 87, 188, 249, 252),
    (0, 16, 55, 142, 255),
    (4, 110, 84, 9, 164),
)  # red, green, blue there: dark to bright


@dataclass(frozen=True)
class Heat:
    """values: (rows, columns) float32, what each place adds to the logit of `label`; below 0 it speaks against it. By CAM
    they add up to the logit without its bias; of OCCLUSION each is how far the logit falls without that place. pixels:
    (h, w, 3), the picture as the network sees it, whose whole the values cover. method: CAM, GRAD_CAM or OCCLUSION."""

    values: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    label: str
    method: str

    def overlay(self) -> Image.Image:
        """The picture with what speaks for the class laid over it, from dark to bright; what speaks against it is left."""
        picture = Image.fromarray(self.pixels)
        scale = max(1.0, SHOWN_PIXELS / min(picture.size))
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
        strength = np.asarray(Image.fromarray(shares(self.values)).resize(picture.size, Image.Resampling.BICUBIC))
        strength = np.clip(strength, 0, 1)[..., None]
        colours = np.stack([np.interp(strength[..., 0], STOPS, channel) for channel in COLOURS], axis=-1)
        mixed = np.asarray(picture) * (1 - OPACITY * strength) + colours * OPACITY * strength
        return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def shares(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What speaks for the class as a share of the strongest place, in 0..1."""
    positive = np.maximum(values, 0)
    top = float(positive.max())
    return np.asarray(positive / top if top > 0 else positive, np.float32)


@own_settings()
def explain(bundle: str | os.PathLike[str] | Model, picture: Picture, label: str | None = None) -> Heat:
    """Where a bundle sees `label` in a picture, by default what it names. Raises PhotoError, RecipeError for a class that it
    does not know, BundleError for one that gives numbers, MissingExtra."""
    model = bundle if isinstance(bundle, Model) else load(bundle)
    pixels = model.pixels(picture)
    if model.task == "regression":
        raise BundleError(
            what="This bundle gives a number, and no class whose places could be shown.",
            fix="Use a bundle that was tuned on classes or labels.",
        )
    logits = model.logits(pixels[None])[0]
    name = model.classes[int(logits.argmax())] if label is None else label
    if name not in model.classes:
        raise RecipeError(
            what=f"The bundle knows no class {name!r}.",
            why=f"It knows {', '.join(model.classes[:20])}.",
            fix=nearest(name, model.classes),
        )
    values, method = _asked(model, pixels, model.classes.index(name))
    return Heat(np.asarray(values, np.float32), pixels, name, method)


def activation(head: Head, seen: NDArray[np.float32], target: int) -> NDArray[np.float32]:
    """(rows, columns): what each place of a map (c, rows, columns), whose mean are the features, adds to a logit. Raises
    BundleError where the head takes another number of features."""
    if seen.ndim != 3 or len(seen) != head.width:
        raise BundleError(
            what=f"The bundle's head takes {head.width} features, and its map has the shape {seen.shape}.",
            why="head.safetensors and model.onnx are of different models.",
            fix=AGAIN,
        )
    x = seen.mean(axis=(1, 2))
    gradient = np.asarray(head.layers[-1][0][target], np.float32)
    inputs = [x]
    for weight, bias in head.layers[:-1]:
        out = weight @ inputs[-1] + bias
        inputs.append(np.maximum(out, 0) if head.activation == "relu" else out)
    for (weight, _), out in zip(reversed(head.layers[:-1]), reversed(inputs[1:]), strict=True):
        if head.activation == "relu":
            gradient = gradient * (out > 0)
        gradient = gradient @ weight
    return np.asarray(np.tensordot(gradient, seen, axes=1) / (seen.shape[1] * seen.shape[2]), np.float32)


def check_picture(out: Path, *, force: bool = False) -> None:
    """Raises RecipeError for a name that says no format, and for a file that is there, unless force: it may be a photo."""
    if Image.registered_extensions().get(out.suffix.lower()) not in ("PNG", "JPEG", "WEBP"):
        raise RecipeError(what=f"{out} says no format that a map is written in.", fix="Name it .png, .jpg or .webp.")
    if os.path.lexists(out) and not force:
        raise RecipeError(what=f"{out} is there already.", fix="Name another file with --out, or replace it: --force")


def write_overlay(heat: Heat, out: Path, *, force: bool = False) -> None:
    """Writes the picture, whole or not at all, in the format its name says. Raises RecipeError as `check_picture` does, and
    where it cannot be written."""
    check_picture(out, force=force)
    form = Image.registered_extensions()[out.suffix.lower()]
    try:
        with replaced_file(out) as place:
            heat.overlay().save(place, form)
    except OSError as error:
        raise RecipeError(what=f"The map cannot be written to {out}.", why=f"{error.strerror or error}.") from error


def _asked(model: Model, pixels: NDArray[np.uint8], target: int) -> tuple[NDArray[Any], str]:
    if model.has_map:
        head = read_head(model.bundle.folder)
        method = CAM if len(head.layers) == 1 else GRAD_CAM
        return activation(head, model.map(pixels[None])[0], target), method
    if importlib.util.find_spec("captum") is None:
        raise MissingExtra("captum", "tune", "A map of this network")
    try:
        return _grad_cam(model, pixels, target), GRAD_CAM
    except ReheadError:  # it was tuned, or its weights are not here
        return _occluded(model, pixels, target), OCCLUSION


def _grad_cam(model: Model, pixels: NDArray[np.uint8], target: int) -> NDArray[np.float32]:
    """By the backbone itself. Raises BackboneError where the network is not the bundle's."""
    import torch

    from rehead.nets.backbone import load_backbone
    from rehead.nets.grad_cam import grad_cam

    about, preprocess = model.bundle.facts["backbone"], model.bundle.preprocess
    name, arguments = about.get("name"), about.get("arguments") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise BackboneError(what="The bundle does not say what its backbone is.")
    if ":" in name or FROM_ELSEWHERE.intersection(arguments):
        raise BackboneError(
            what="The bundle says where weights are fetched from, which whoever made it does not decide."
        )
    if about.get("learned") or about.get("cut") != "pool":
        raise BackboneError(what="The network was tuned or cut, and the bundle alone has it.")
    backbone = load_backbone(name, weights=_weights_of_run(model), arguments=arguments, fetches=False)
    if backbone.weights != about.get("weights"):
        raise BackboneError(what="The weights that are here are not the bundle's.")
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
    image = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)[None].copy())
    return grad_cam(backbone, read_head(model.bundle.folder), image, target)


def _weights_of_run(model: Model) -> Path | None:
    """The file of weights that the run names in which the bundle lies; None where there is none."""
    try:
        recipe = tomllib.loads((model.bundle.folder.parent / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    weights = recipe.get("weights")
    return Path(weights) if isinstance(weights, str) and Path(weights).is_file() else None


def _occluded(model: Model, pixels: NDArray[np.uint8], target: int) -> NDArray[np.float32]:
    """How far the logit falls when each part of the picture is hidden behind the mean colour."""
    import torch
    from captum.attr import Occlusion

    h, w = pixels.shape[:2]
    window = (3, math.ceil(h / N_WINDOWS), math.ceil(w / N_WINDOWS))

    def forward(batch: torch.Tensor) -> torch.Tensor:
        shown = batch.permute(0, 2, 3, 1).clamp(0, 255).to(torch.uint8).numpy()
        return torch.from_numpy(model.logits(np.ascontiguousarray(shown)))

    mean = torch.tensor(model.bundle.preprocess.mean).reshape(1, 3, 1, 1) * 255
    seen = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    found = Occlusion(forward).attribute(
        seen, sliding_window_shapes=window, strides=window, baselines=mean.expand_as(seen), target=target,
        perturbations_per_eval=8,
    )  # fmt: skip
    return np.asarray(found[0, 0, :: window[1], :: window[2]].numpy(), np.float32)  # all channels have the same
