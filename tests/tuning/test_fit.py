"""The tutorial's loop: what learns changes, what does not is bit for bit as before, and mistakes are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DATA, WEIGHTS, make_photos
from torch import nn

import rehead
from rehead.data.catalog import as_csv
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.durable import write_text
from rehead.errors import EngineError, RecipeError, RunError, SourceError
from rehead.tuning.modes import set_modes

EXAMPLE = Path(__file__).parents[2] / "examples" / "dogs_vs_cats.py"


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def batches(n: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(n):
        labels = torch.arange(8) % 2
        images = torch.randn(8, 3, 12, 12, generator=generator) + labels.reshape(-1, 1, 1, 1)
        made.append((images, torch.eye(2)[labels]))
    return made


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_only_what_is_asked_for_learns() -> None:
    model = chain()
    before = state(model)
    losses = rehead.fit(model, batches(), train=model[1:], epochs=3, lr=0.01, device="cpu")
    after = state(model)
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"3", "5"}
    assert losses[-1] < losses[0]


def test_statistics_of_normalisation_follow_only_when_asked() -> None:
    kept, adapted = chain(), chain()
    rehead.fit(kept, batches(), device="cpu")
    rehead.fit(adapted, batches(), norm="adapt", device="cpu")
    assert torch.equal(kept[0][1].running_mean, torch.zeros(8))
    assert not torch.equal(adapted[0][1].running_mean, torch.zeros(8))


def test_frozen_modules_behave_as_in_prediction_and_dropout_only_where_something_learns() -> None:
    model = chain()
    set_modes(model, {"3.weight", "3.bias"})
    assert not model[0][1].training
    assert not model[0][3].training
    assert model[3].training
    set_modes(model, {"0.0.weight"}, "adapt")
    assert model[0][0].training
    assert model[0][3].training
    assert not model[3].training


def test_a_frozen_body_is_run_once_for_each_batch() -> None:
    model, calls = chain(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    rehead.fit(model, batches(4), train=model[1:], epochs=3, device="cpu")
    assert len(calls) == 4


@pytest.mark.parametrize("chance", [nn.Dropout(0.5), nn.Sequential(nn.Identity(), nn.AlphaDropout(0.5))])
def test_chance_behind_a_frozen_body_is_thrown_anew_in_each_epoch(chance: nn.Module) -> None:
    body, seen, calls = chain()[:3], [], []
    model = nn.Sequential(body, chance, nn.Linear(8, 2))
    body.register_forward_hook(lambda *_: calls.append(1))
    model[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    rehead.fit(model, batches(1), train=model[2], epochs=3, device="cpu")
    assert len(calls) == 1
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("body", [chain()[:3], nn.Flatten()])
def test_layers_that_work_in_place_spoil_neither_what_is_kept_nor_the_batches(body: nn.Module) -> None:
    """As torchvision's classifiers begin, of EfficientNet and MobileNetV3."""
    mine, seen = batches(1), []
    width = body(mine[0][0]).shape[1]
    before = mine[0][0].clone()
    model = nn.Sequential(body, nn.Dropout(0.5, inplace=True), nn.Linear(width, 2))
    model[2].register_forward_pre_hook(lambda _, inputs: seen.append(float((inputs[0] == 0).double().mean())))
    rehead.fit(model, mine, train=model[2], epochs=8, device="cpu")
    assert max(seen) < 0.7
    assert torch.equal(mine[0][0], before)


def test_a_first_layer_that_works_in_place_leaves_the_batches_as_they_are() -> None:
    mine = batches(1)
    before = mine[0][0].clone()
    rehead.fit(nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Flatten(), nn.Linear(432, 2)), mine, device="cpu")
    assert torch.equal(mine[0][0], before)


def test_class_numbers_and_one_hot_labels_give_the_same() -> None:
    one_hot, numbers = chain(), chain()
    a = rehead.fit(one_hot, batches(), train=one_hot[3:], device="cpu")
    b = rehead.fit(numbers, [(x, y.argmax(1)) for x, y in batches()], train=numbers[3:], device="cpu")
    assert a == pytest.approx(b, rel=1e-6)


def test_a_layer_of_the_wrong_width_is_named_with_both_widths() -> None:
    model = chain()
    model[3] = nn.Linear(9, 16)
    with pytest.raises(RecipeError) as error:
        rehead.fit(model, batches(), device="cpu")
    assert error.value.what == "The layer 3 takes 9 features, but is given 8."
    assert "nn.Linear(8, 16)" in error.value.fix


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((torch.zeros(4, 3, 6, 6), [0, 1, 0, 1]), "Batch 1 has labels of list"),
        ((torch.zeros(4, 3, 6, 6), torch.zeros(4), 1), "Batch 1 is a tuple of 3"),
        (
            (torch.zeros(4, 3, 6, 6, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)),
            "but is given torch.float64",
        ),
    ],
)
def test_what_is_no_batch_of_the_model_is_told_in_words(batch: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        rehead.fit(chain(), [batch], device="cpu")


def test_a_model_of_one_output_learns_nothing_and_that_is_said() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    with pytest.raises(RecipeError, match="gives one number a photo"):
        rehead.fit(model, [(torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64))], device="cpu")


def test_nothing_to_train_is_an_error() -> None:
    model = chain()
    with pytest.raises(RecipeError, match="Nothing is left to train"):
        rehead.fit(model, batches(), train=model[4], device="cpu")
    with pytest.raises(RecipeError, match="Nothing is left to train"):
        rehead.fit(model, batches(), train=chain()[3:], device="cpu")


def test_no_batches_are_an_error() -> None:
    with pytest.raises(RecipeError, match="There are no batches"):
        rehead.fit(chain(), [], device="cpu")


def test_an_optimizer_that_is_made_already_is_refused_and_the_model_stays_as_it_was() -> None:
    model = chain()
    model[0].requires_grad_(False)
    before = [(name, p.requires_grad) for name, p in model.named_parameters()], [m.training for m in model.modules()]
    with pytest.raises(RecipeError, match="is one that is made already: Adam") as error:
        rehead.fit(model, batches(), optimizer=torch.optim.Adam(model.parameters()), device="cpu")  # type: ignore[arg-type]
    assert error.value.fix == "Pass what makes it: optimizer=torch.optim.Adam, lr=1e-3"
    after = [(name, p.requires_grad) for name, p in model.named_parameters()], [m.training for m in model.modules()]
    assert after == before


def test_an_optimizer_that_cannot_be_made_leaves_what_required_a_gradient() -> None:
    def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters)

    model = chain()
    with pytest.raises(TypeError, match="lr"):
        rehead.fit(model, batches(), train=model[3:], optimizer=sgd, device="cpu")
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_loss_that_is_no_number_stops_before_the_step_with_batch_and_learning_rate() -> None:
    model, (first, *_) = chain(), batches()
    with torch.no_grad():
        next(model.parameters()).fill_(float("inf"))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RunError) as error:
        rehead.fit(model, [first], lr=0.5, device="cpu")
    assert "in epoch 1, batch 1" in error.value.what
    assert "0.5" in error.value.why
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y: (x * float("nan"), y), "has images that are no numbers"),
        (lambda x, y: (x[:0], y[:0]), "is empty"),
        (lambda x, y: ((x * 255).byte(), y), "has images of torch.uint8"),
        (lambda x, y: (x.numpy(), y), "has images of ndarray"),
        (lambda x, y: (x, y[:-1]), "for logits"),
        (lambda x, y: (x, y.argmax(1).float()), "of torch.float32 for logits"),
        (lambda x, y: (x, y.argmax(1) + 5), "has classes 5 to 6, and the model has 2"),
        (lambda x, y: (x, y * float("nan")), "has labels that are no numbers"),
        (lambda x, y: (x, torch.ones_like(y)), "has photos whose labels do not add up to 1"),
    ],
)
def test_a_batch_that_cannot_be_learned_from_is_named_and_nothing_moves(spoil: Any, words: str) -> None:
    model, (first, second, *_) = chain(), batches()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RecipeError, match=words) as error:
        rehead.fit(model, [spoil(*first), second], device="cpu")
    assert error.value.what.startswith("Batch 1 ")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"norm": "foo"}, {"lr": -1.0}, {"train": "head"}])
def test_arguments_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        rehead.fit(chain(), batches(), device="cpu", **wrong)


class OfWidth(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(432, width), nn.Linear(width, 2))


class Doubled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(super().forward(2 * x + 1))


def test_a_chain_made_of_other_arguments_than_its_modules_is_run_once_for_each_batch() -> None:
    model, calls = OfWidth(8), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    rehead.fit(model, batches(4), train=model[2], epochs=3, device="cpu")
    assert len(calls) == 4


@pytest.mark.parametrize("is_hook", [False, True])
def test_what_a_chain_does_to_photos_before_its_modules_is_done_once(is_hook: bool) -> None:
    layers, seen = (nn.Flatten(), nn.Linear(432, 8), nn.Linear(8, 2)), []
    model = nn.Sequential(*layers) if is_hook else Doubled(*layers)
    if is_hook:
        model.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0] + 1,))
    model[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    ((x, y),) = batches(1)
    rehead.fit(model, [(x, y)], train=model[2], epochs=2, device="cpu")
    with torch.no_grad():
        wanted = model[1]((2 * x + 1).flatten(1))
    assert len(seen) == 2
    assert all(torch.equal(features, wanted) for features in seen)


def test_a_layer_that_stands_twice_in_a_chain_is_run_twice() -> None:
    turn, calls = nn.Hardtanh(-0.5, 0.5), []
    turn.register_forward_hook(lambda *_: calls.append(1))
    rehead.fit(nn.Sequential(turn, nn.Flatten(), turn, nn.Linear(432, 2)), batches(1), epochs=3, device="cpu")
    assert len(calls) == 2


def test_what_hears_of_the_logits_of_a_chain_hears_of_each_batch() -> None:
    model, heard = chain(), []
    model.register_forward_hook(lambda *_: heard.append(1))
    rehead.fit(model, batches(2), train=model[3:], epochs=2, device="cpu")
    assert len(heard) == 4


def test_what_a_loop_of_ones_own_would_add_to_is_not_left_behind() -> None:
    model = chain()
    model[0][0].weight.grad = kept = torch.ones_like(model[0][0].weight)
    rehead.fit(model, batches(1), train=model[3:], device="cpu")
    assert model[0][0].weight.grad is kept
    assert all(p.grad is None for p in model[3:].parameters())


def test_an_optimizer_that_calls_the_loop_itself_is_refused() -> None:
    model = chain()
    before = state(model)
    with pytest.raises(RecipeError, match="LBFGS") as error:
        rehead.fit(model, batches(1), optimizer=torch.optim.LBFGS, device="cpu")
    assert error.value.fix == "For example: optimizer=torch.optim.SGD"
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # PyTorch's: photos require no gradient
@pytest.mark.parametrize("way", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_what_hears_of_the_gradients_of_a_chain_hears_of_each_batch(way: str) -> None:
    model, heard = chain(), []
    getattr(model, way)(lambda *_: heard.append(1))
    rehead.fit(model, batches(2), train=model[3:], epochs=2, device="cpu")
    assert len(heard) == 4


def test_parts_may_be_modules_and_what_was_frozen_before_stays_marked() -> None:
    model = chain()
    first = next(model.parameters()).requires_grad_(False)
    rehead.fit(model, batches(), train=[model[-1]], epochs=1, device=torch.device("cpu"))
    assert not first.requires_grad
    assert model[-1].weight.requires_grad


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv2d(7, 4, 1), "The layer 1 takes 7 channels, but is given 4"),
        (nn.BatchNorm2d(9), "The layer 1 takes 9 channels, but is given 4"),
        (nn.Linear(4, 2), r"The layer 1 takes 4 features, but is given \d+"),
    ],
)
def test_a_layer_of_another_width_is_named(layer: nn.Module, words: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    with pytest.raises(RecipeError, match=words) as error:
        rehead.fit(model, [(torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))], device="cpu")
    if isinstance(layer, nn.Linear):
        assert error.value.fix == "Put nn.AdaptiveAvgPool2d(1) and nn.Flatten() before it."


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineError, match="no device cuda"):
        rehead.fit(chain(), batches(), device="cuda")


def test_a_batch_is_balanced_normalised_and_one_hot(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 30, "blue": 10})
    images, labels = rehead.load_batch(photos, 10, seed=1)
    assert (images.shape, images.dtype) == ((10, 3, 224, 224), torch.float32)
    assert labels.sum(0).tolist() == [5, 5]
    red = images[labels[:, 1] == 1].mean((0, 2, 3))
    assert red[0] > 1 > red[2]  # in units of the standard deviation
    again, _ = rehead.load_batch(photos, 10, seed=1)
    other, _ = rehead.load_batch(photos, 10, seed=2)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)


def test_a_batch_of_one_side_is_balanced_too(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 60, "blue": 60})
    for seed in range(4):
        assert rehead.load_batch(photos, 12, side="valid", seed=seed)[1].sum(0).tolist() == [6, 6]


def test_a_batch_passes_over_what_cannot_be_read_and_says_when_too_little_is_left(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    (photos / "red" / "0.png").write_bytes(b"broken")
    assert len(rehead.load_batch(photos, 7)[0]) == 7
    with pytest.raises(SourceError, match="7 photos that can be read, and 8 are wanted"):
        rehead.load_batch(photos, 8)


def test_a_batch_of_which_no_photo_can_be_read_says_why(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    for photo in photos.glob("*/*"):
        photo.write_bytes(photo.read_bytes()[:40])
    with pytest.raises(SourceError, match="has 0 photos that can be read, and 8 are wanted") as error:
        rehead.load_batch(photos, 8)
    assert re.fullmatch(r"8 cannot be read; (red|blue)/\d\.png is not an image that can be read\.", error.value.why)
    assert error.value.fix == "Bring photos that can be read."


def test_a_side_that_no_photo_is_drawn_to_is_not_blamed_on_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    monkeypatch.setattr("rehead.batches._side", lambda *_: "train")
    with pytest.raises(
        SourceError, match="has 0 photos that can be read on its side 'valid', and 1 are wanted"
    ) as error:
        rehead.load_batch(photos, 1, side="valid")
    assert (error.value.why, error.value.fix) == ("", "Bring more photos.")


def test_sides_of_batches_share_no_photo(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    sides = [rehead.load_batch(photos, 4, side=side, seed=0)[0] for side in ("train", "valid")]
    assert not any(torch.equal(a, b) for a in sides[0] for b in sides[1])


def test_a_catalog_in_the_photos_folder_gives_batches_the_sides_of_its_job(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    write_text(photos / "catalog.csv", as_csv(catalog.photos))
    held_out = [catalog.photos[i] for i in catalog.on("valid")]
    images, _ = rehead.load_batch(photos / "catalog.csv", len(held_out), side="valid")
    alone = [str(photos / photo.path) for photo in held_out], [photo.label for photo in held_out]
    expected, _ = rehead.load_batch(alone, len(held_out))
    assert sorted(images.mean((1, 2, 3)).tolist()) == sorted(expected.mean((1, 2, 3)).tolist())


def test_a_class_has_one_column_in_batches_of_each_side(tmp_path: Path) -> None:
    for side, classes in (("train", ("blue", "green", "red")), ("valid", ("blue", "red"))):
        make_photos(tmp_path / "photos" / side, dict.fromkeys(classes, 4))
    assert rehead.load_batch(tmp_path / "photos", 6, side="train")[1].sum(0).tolist() == [2, 2, 2]
    assert rehead.load_batch(tmp_path / "photos", 4, side="valid")[1].sum(0).tolist() == [2, 0, 2]


def test_a_folder_without_photos_is_no_class_of_a_batch(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4, "green": 4})
    for photo in (photos / "green").iterdir():
        photo.rename(photo.with_suffix(""))  # what is in it tells
    (photos / "docs").mkdir()
    (photos / "docs" / "readme.txt").write_text("red and blue")
    assert rehead.load_batch(photos, 6)[1].sum(0).tolist() == [2, 2, 2]


def test_photos_without_a_side_beside_others_are_of_the_training_side_as_in_a_job(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    rows = [f"{label}/{i}.png,{label},{'test' if i == 0 else ''}" for label in ("red", "blue") for i in range(4)]
    (photos / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    assert rehead.load_batch(photos / "labels.csv", 6, side="train")[1].sum(0).tolist() == [3, 3]
    assert rehead.load_batch(photos / "labels.csv", 2, side="test")[1].sum(0).tolist() == [1, 1]


@pytest.mark.slow
def test_the_example_is_verified_on_photos_that_it_cannot_have_learned_from(tmp_path: Path) -> None:
    """Every batch it asks for names its side, and only the last is of held-out photos."""
    photos = make_photos(tmp_path / "photos", {"red": 150, "blue": 150})
    code = f"""
import runpy, sys, rehead
asked, load = [], rehead.load_batch
def told(*arguments, **settings):
    asked.append(settings["side"])
    return load(*arguments, **settings)
rehead.load_batch = told
sys.argv = ["example", {str(photos)!r}, "--batches", "2", "--device", "cpu"]
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
assert asked == ["train", "train", "valid"], asked
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def example(*arguments: str | Path) -> int:
    """How many of 50 held-out photos the example gets right."""
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(re.search(r"(\d+) of 50 held-out", done.stdout)[1])  # type: ignore[index]


@pytest.mark.realdata
@pytest.mark.slow
def test_the_example_tells_cats_from_dogs() -> None:
    assert example(DATA / "dogscats") >= 42


@pytest.mark.slow
@pytest.mark.realdata
def test_the_example_cuts_a_real_resnet_at_layer3() -> None:
    weights = WEIGHTS / "resnet18_to_layer3.safetensors"
    assert example(DATA / "dogscats", "resnet18", "--weights", weights, "--cut", "layer3", "--batches", "40") >= 38


@pytest.mark.realdata
@pytest.mark.slow
def test_the_example_runs_on_a_resnet50_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        dict(rehead.backbone("resnet50", pretrained=False).network.state_dict()), tmp_path / "resnet50.safetensors"
    )
    example(
        DATA / "dogscats", "resnet50", "--weights", tmp_path / "resnet50.safetensors"
    )  # of random weights: by chance


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "A batch of 0 photos"),
        ({"n": 2.5}, "A batch of 2.5 photos"),
        ({"preprocess": None}, "preprocess= is NoneType"),
        ({"side": "val"}, "There is no side 'val'"),
        ({"side": "test"}, "has no side 'test'"),
        ({"n": 100}, "has 40 photos that can be read, and 100 are wanted"),
    ],
)
def test_a_batch_that_cannot_be_made_says_what_is_wrong(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 30, "blue": 10})
    with pytest.raises((RecipeError, SourceError), match=words):
        rehead.load_batch(photos, **{"n": 4, **arguments})


def test_a_batch_is_of_photos_of_one_class_each(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {"red": 3})
    paths = sorted((tmp_path / "photos" / "red").iterdir())
    for labels, words in ((["a", "a;b", "b"], "several labels"), (["0.5", "1.5", "2"], "a number")):
        table = tmp_path / "table.csv"
        table.write_text("path,label\n" + "".join(f"{p},{label}\n" for p, label in zip(paths, labels, strict=True)))
        with pytest.raises(SourceError, match=words):
            rehead.load_batch(table, 2)
