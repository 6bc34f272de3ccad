"""What learns, and how: one frozen dataclass that says what a job does, checks itself, and is written as TOML.

Functions below the job take plain arguments; nothing deeper than `run.py` knows the recipe's name.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rehead.bundle import Activation
from rehead.errors import RecipeError, nearest
from rehead.tuning.course import Course
from rehead.tuning.layers import check_form
from rehead.tuning.presets import PRESETS
from rehead.tuning.ranges import CHOICES, RANGES, WHOLE, as_whole, check_choice, check_within, hidden_widths

FORMAT = 1
ENGINES = ("auto", "onnxruntime", "openvino", "openvino-bf16", "torch")
DEVICES = ("auto", "cpu", "cuda", "mps")
AUTO = "auto"  # as a backbone: the one that wins a race; as a preset: the one that pays within --budget
LR = 1e-3  # the usual learning rate of the optimisers that are not told one
# and of Adam for all layers behind a head that knows its classes: at LR 84 steps on 900 cats and dogs ended at 366 and 376 of
# 400 others right (two seeds; the first was at chance after an epoch), at this rate at 393 and 393; the head alone at 394
LR_OF_ALL = 3e-4
# AdamW's takes the same share of every weight a step. Adam's is a part of the gradient, which is brought to one size: under
# noise a weight that the loss says little of falls to a tenth within 600 steps at 0.05
DECAY = {"adamw": 0.05, "adam": 0.0, "sgd": 1e-4}
STOP_SHARE = 0.1  # of the training photos say when dense layers have learned enough; no held-out photo does

OF_STEPS = (  # settings of training by gradient steps
    "activation", "epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "layer_decay", "label_smoothing",
    "clip", "accumulate", "ema", "patience", "norm", "mixup", "cutmix", "erase", "sampling", "augment", "views",
    "start_scale", "warm_head", "watch", "cache_limit_gb", "compile", "first",
)  # fmt: skip
KEPT = (  # by a first phase, whose other settings are its preset's
    "activation", "sampling", "accumulate", "watch", "cache_limit_gb", "compile",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a job's result but the photos.

    task: what is learned of a photo: one class, several labels, or a number; "auto" where the labels tell it.
    backbone: a name that `rehead backbones` lists, or "auto", the one that wins a race on the training side.
    weights: a local file, or None for the backbone's own.
    backbone_args: arguments for timm, and mean, std, input_size, crop_pct, interpolation of the preprocessing.
    train: what learns: "head", "last:2", "last:30%", "layer4,head", "all", "lora:8@last:4". cut: the last layer of the
    prefix; by default all below the first layer that learns. first: None, or "balanced" with train "all": what that preset
    trains learns before, by its settings, from activations that are kept. fit: how a picture becomes the network's square;
    "default" is the backbone's own. head: linear, mlp:H1,H2 (hidden widths), prototype, or auto. class_weight: None or
    "balanced".
    activation: between the layers of an MLP. epochs, batch_size, lr: of training by gradient steps; by default what the
    MLP or the layers need; lr "auto" finds it by a range test. optimizer, schedule, weight_decay, layer_decay,
    label_smoothing, clip, accumulate, ema, patience, norm, mixup, cutmix, erase, sampling: of training layers, see
    `course.Course`. augment: what each view of a photo is like. views: of each photo, the photo itself first. start_scale: the
    share of the network's side at which training from photos begins, see `grow.py`.
    warm_head: whether the head is solved before layers move. watch: the share of the training photos that decides which
    epoch is kept, one in round(1 / watch). cache_limit_gb: the most that activations may take.
    valid_fraction: the share held out where the photos bring no split. folds: of the k-fold on the training side.
    tie_copies: whether near copies stand on one side, where the split is ours. precision: the share right that is wanted of
    answers that are not unsure, of classes.
    limit: photos to use at most. budget_s: seconds of extraction at most. seed: of every dice that is thrown.
    quantize: "none", or "int8": the frozen network computes in 8 bits, in extraction as in the bundle.
    compile: layers are trained by compiled code (torch.compile), which takes a minute to make.
    max_bad: the share of unreadable photos over which the job stops.
    """

    task: str = "auto"
    backbone: str = "efficientnet_lite0"
    weights: str | None = None
    backbone_args: dict[str, Any] = field(default_factory=dict)
    train: str = "head"
    first: str | None = None
    cut: str | None = None
    fit: str = "default"
    head: str = "linear"
    class_weight: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | str | None = None
    activation: Activation = "relu"
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    weight_decay: float | None = None
    layer_decay: float = 1.0
    label_smoothing: float = 0.1
    clip: float | None = None
    accumulate: int = 1
    ema: float | None = None
    patience: int | None = None
    norm: str = "frozen"
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    sampling: str = "plain"
    augment: str = "flip"
    views: int = 2
    start_scale: float = 1.0
    warm_head: bool = True
    watch: float = 0.1
    cache_limit_gb: float | None = None
    valid_fraction: float = 0.2
    folds: int = 5
    precision: float = 0.95
    tie_copies: bool = True
    limit: int | None = None
    budget_s: float | None = None
    max_bad: float = 0.2
    engine: str = "auto"
    device: str = "auto"
    quantize: str = "none"
    seed: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        for name in WHOLE:
            object.__setattr__(self, name, as_whole(getattr(self, name)))
        check_choice("fit", self.fit, ("default", "crop", "pad", "squash", "auto"))
        check_choice("engine", self.engine, ENGINES)
        check_choice("device", self.device, DEVICES)
        check_choice("quantize", self.quantize, ("none", "int8"))
        check_choice("activation", self.activation, ("relu", "none"))
        check_choice("class-weight", self.class_weight, (None, "balanced"))
        hidden_widths(self.head)
        check_within("valid-fraction", self.valid_fraction, 0.01, 0.9)
        check_within("max-bad", self.max_bad, 0, 1)
        check_within("folds", self.folds, 2, 100, is_whole=True)
        check_within("precision", self.precision, 0.5, 0.9999)
        check_form(self.train)
        if self.train != "head" and self.head in ("prototype", "auto"):
            raise RecipeError(
                what=f"--head {self.head} cannot be trained on with --train {self.train}.",
                fix="Name --head linear or mlp:1000,256, or learn the head alone: --train head.",
            )
        check_choice("first", self.first, (None, "balanced"))
        if self.first is not None and self.train != "all":
            raise RecipeError(
                what=f"--first {self.first} goes before --train all, not before --train {self.train}.",
                fix="Leave --first out, or train all layers behind it.",
            )
        if self.quantize != "none":
            self._check_quantized()
        own = {"weights": self.weights, "backbone-arg": self.backbone_args, "cut": self.cut}
        if self.backbone == AUTO and (named := [f"--{option}" for option, value in own.items() if value]):
            raise RecipeError(
                what=f"{named[0]} is of one backbone, and --backbone auto is yet to choose it.",
                fix="Name the backbone, or leave the option out. `rehead race` takes weights of your own: NAME=FILE.",
            )
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and (name, value) != ("lr", AUTO):
                unit = " seconds" if name.endswith("_s") else " GB" if name.endswith("_gb") else ""
                said = name.removesuffix("_s").removesuffix("_gb").replace("_", "-")
                check_within(said, value, low, high, unit, is_whole=name in WHOLE)

        if self.norm == "adapt" and self.batch_size == 1:
            raise RecipeError(
                what="--norm adapt needs batches of more than one photo.",
                why="Norms take their statistics on a batch.",
                fix="Raise --batch-size, or leave --norm out.",
            )
        if self.lr == AUTO and self.train == "head" and not hidden_widths(self.head):
            raise RecipeError(
                what=f"--lr auto has nothing to find with --train head and --head {self.head}.",
                why="Such a head is solved, or chosen among heads that are; it has no learning rate.",
                fix="Leave --lr out, or name what learns by gradient steps: --head mlp:256, --train last:2.",
            )

    def _check_quantized(self) -> None:
        if self.train != "head":
            raise RecipeError(
                what=f"--quantize {self.quantize} is for a network that is frozen; here layers learn (--train {self.train}).",
                why="In 8 bits nothing can be trained.",
                fix="Train a head alone (--train head), or pass --quantize none and make 8 bits of what was trained: "
                "rehead export BUNDLE --to onnx-int8",
            )
        other = {"--engine": self.engine not in ("auto", "onnxruntime"), "--device": self.device not in ("auto", "cpu")}
        if wrong := [option for option, is_other in other.items() if is_other]:
            raise RecipeError(
                what=f"--quantize {self.quantize} runs by ONNX Runtime on the CPU alone.",
                why=f"Others would give other features; what names another is {' and '.join(wrong)}.",
                fix=f"Leave {' and '.join(wrong)} out.",
            )

    def to_toml(self) -> str:
        """The recipe as TOML; what is None is left out."""
        import tomli_w

        values = {name: value for name, value in asdict(self).items() if value is not None}
        return tomli_w.dumps({"format": FORMAT, **values})

    @property
    def weights_file(self) -> Path | None:
        """The file of weights that was asked for."""
        return None if self.weights is None else Path(os.path.expanduser(self.weights))

    @property
    def extracts_by(self) -> tuple[str, str]:
        """The engine and the device that frozen layers are asked for; 8 bits are ONNX Runtime's, on the CPU."""
        return ("onnxruntime", "cpu") if self.quantize != "none" else (self.engine, self.device)

    @property
    def course(self) -> Course:
        """How layers are trained by this recipe; with lr "auto" the usual rate, until a range test has found one."""
        usual = LR_OF_ALL if self.train == "all" and self.warm_head and self.optimizer != "sgd" else LR
        return Course(
            epochs=self.epochs or 6,
            batch_size=self.batch_size or 32,
            optimizer=self.optimizer,
            lr=usual if self.lr in (None, AUTO) else float(self.lr or usual),
            schedule=self.schedule,
            weight_decay=DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay,
            layer_decay=self.layer_decay,
            label_smoothing=self.label_smoothing,
            clip=self.clip,
            accumulate=self.accumulate,
            average=self.ema,
            patience=self.patience,
            tolerance=0.0 if self.schedule == "constant" else Course.tolerance,
            norm=self.norm,
            mixup=self.mixup,
            cutmix=self.cutmix,
            erase=self.erase,
            class_weight=self.class_weight,
            sampling=self.sampling,
            seed=self.seed,
            compile=self.compile,
        )

    @property
    def first_phase(self) -> Recipe | None:
        """What learns before, and how; None where nothing does."""
        if self.first is None:
            return None
        usual = {f.name: f.default for f in fields(self) if f.name in OF_STEPS and f.name not in KEPT}
        return replace(self, **{**usual, **PRESETS[self.first], "watch": self.watch, "cut": None})

    @classmethod
    def from_preset(cls, preset: str | None, settings: dict[str, Any]) -> Recipe:
        """The recipe of a preset's settings, and of others that go before them."""
        if preset is None:
            return cls.from_dict(settings)
        if preset == AUTO:
            raise RecipeError(what="--recipe auto tries one recipe after another; it is none itself.")
        return cls.from_dict(preset_with(preset, settings))

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """The recipe in `text`. Raises RecipeError for unknown keys, wrong kinds and newer formats."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(what="The recipe is not valid TOML.", why=str(error)) from error
        number = values.pop("format", None)
        if not isinstance(number, int) or number > FORMAT:
            raise RecipeError(
                what=f"The recipe has format {number!r}; this rehead reads up to {FORMAT}.",
                fix="Update with: pip install --upgrade rehead",
            )
        if unknown := sorted(values.keys() - {f.name for f in fields(cls)}):
            raise RecipeError(
                what=f"The recipe has a setting {unknown[0]!r} that this rehead does not know.",
                why="A newer rehead may have written it.",
                fix="Update with: pip install --upgrade rehead",
            )
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe with these fields and the defaults for the rest. Raises RecipeError for a name it does not have."""
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise RecipeError(
                    what=f"A recipe has no setting {name!r}.",
                    why=f"It has: {', '.join(names)}.",
                    fix=nearest(name, names),
                )
        arguments = dict(values.get("backbone_args", {}))  # a file knows lists where the command line makes tuples
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
        return cls(**{**values, "backbone_args": own})


def preset_with(preset: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a preset, and others that go before them; a first phase goes with the layers that it goes before.

    Raises RecipeError for a name that no preset has.
    """
    check_choice("recipe", preset, (None, *PRESETS, AUTO))
    own = dict(PRESETS.get(preset or "", {}))
    if settings.get("train", own.get("train")) != own.get("train"):
        own.pop("first", None)
    return {**own, **settings}


def load(path: Path) -> Recipe:
    """The recipe in a TOML file."""
    return Recipe.from_toml(path.read_text(encoding="utf-8"))
