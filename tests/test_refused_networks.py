"""Networks that cannot become a graph: told before they are fetched where that is known, in words where it is not."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
from conftest import make_photos
from torch import nn

import rehead
from rehead.errors import BackboneError, MissingExtra
from rehead.exporting import prefixes
from rehead.exporting.graph import export_prefix
from rehead.exporting.prefixes import check_backbone, ready_prefix
from rehead.features.engines import OnnxEngine
from rehead.nets import backbone
from rehead.nets.cut import Pooled
from rehead.nets.making import check_runs, created
from rehead.pixels import Preprocess
from rehead.progress import Silent


def test_one_that_is_too_large_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="vit_giant_patch14_224 cannot be exported to ONNX") as caught:
        check_backbone("vit_giant_patch14_224", None, {}, "pool", tmp_path)
    assert caught.value.why == "Its 1,011 million parameters take 4.0 GB; a graph holds 2 GB."
    assert "rehead backbones" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "arguments", "words", "fix"),
    [
        (
            "vit_tiny_patch16_224",
            {"input_size": 384},
            "input_size=384 does not take photos of 3 x 384 x 384",
            "Give both",
        ),
        ("vit_tiny_patch16_224", {"img_size": 384}, "img_size=384 does not take photos of 3 x 224 x 224", "Give both"),
        (
            "vit_tiny_patch16_224",
            {"input_size": (3, 64, 96), "embed_dim": 96},
            r"input_size=\(3, 64, 96\), embed_dim=96 does not take photos of 3 x 64 x 96",
            "Give both",
        ),
        (
            "vit_tiny_patch16_224",
            {"img_size": 384, "in_chans": 1},
            "img_size=384, in_chans=1 does not take photos",
            "Give other values",
        ),
        ("inception_v3", {"input_size": 32}, "input_size=32 does not take photos of 3 x 32 x 32", "Give other values"),
        ("efficientformer_l1", {"input_size": 256}, "input_size=256 does not take photos", "Give other values"),
        ("resnet18", {"in_chans": 1}, "in_chans=1 does not take photos of 3 x 224 x 224", "Give other values"),
        ("resnet18", {"features_only": True}, "features_only=True does not take photos", "Give other values"),
    ],
)
def test_one_that_its_arguments_made_unfit_for_photos_is_refused_before_they_are_read(
    name: str, arguments: dict[str, object], words: str, fix: str, tmp_path: Path
) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    for use in (
        lambda: check_backbone(name, tmp_path / "w.pt", arguments, "pool", tmp_path),
        lambda: backbone.load_backbone(name, arguments=arguments, pretrained=False),
    ):
        with pytest.raises(BackboneError, match=f"{name} with {words}") as caught:
            use()
        assert caught.value.why
        assert caught.value.fix.startswith(fix)


def test_want_of_memory_is_no_fault_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 617400000 bytes.")

    network = created("resnet18", {}, 0)
    network.layer1.register_forward_pre_hook(full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        check_runs(network, "resnet18", {"input_size": 64})
    monkeypatch.setattr(timm, "create_model", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        created("resnet18", {}, 0)


def test_arguments_that_fit_together_are_taken() -> None:
    made = backbone.load_backbone(
        "vit_tiny_patch16_224", arguments={"input_size": 64, "img_size": 64}, pretrained=False
    )
    assert (made.card.preprocess.height, made.card.shape) == (64, (192,))


def test_one_that_is_too_large_at_its_cut_is_refused_before_it_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    made = backbone.load_backbone("resnet18", pretrained=False)
    torch.save(made.network.state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(prefixes, "MAX_GRAPH_BYTES", 1 << 20)
    weights = {"weights": tmp_path / "w.pt", "arguments": {}, "cache": tmp_path, "progress": Silent()}
    with pytest.raises(BackboneError, match="resnet18 cannot be exported"):
        ready_prefix("resnet18", cut="layer2", **weights)
    assert ready_prefix("resnet18", cut="layer1", **weights).card.shape == (64,)


def test_one_that_cannot_be_exported_whole_is_refused_before_its_layers_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    made = backbone.load_backbone("resnet18", pretrained=False)
    torch.save(made.network.state_dict(), tmp_path / "w.pt")

    def only_below_the_pool(prefix: nn.Module, preprocess: Preprocess, path: Path) -> None:
        if isinstance(prefix, Pooled):
            raise BackboneError(what="The network cannot be exported to ONNX.")
        export_prefix(prefix, preprocess, path)

    monkeypatch.setattr(prefixes, "export_prefix", only_below_the_pool)
    photos = make_photos(tmp_path / "photos", {"red": 8, "blue": 8})
    how = {"backbone": "resnet18", "weights": tmp_path / "w.pt", "cache": tmp_path / "cache", "report": False}
    with pytest.raises(BackboneError, match="cannot be exported"):
        rehead.tune(photos, train="last:1", epochs=1, out=tmp_path / "run", **how)
    assert not (tmp_path / "cache" / "features").exists(), "nothing was computed"
    assert not (tmp_path / "run").exists()


def test_an_operator_that_the_exporter_does_not_know_is_told() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x).mean((2, 3))

    preprocess = Preprocess(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(BackboneError, match="The network cannot be exported to ONNX") as caught:
        export_prefix(Odd(), preprocess, Path("never.onnx"))
    assert "lgamma" in caught.value.why


@pytest.mark.parametrize("library", ["torch", "timm"])
def test_without_pytorch_or_timm_one_of_the_hub_is_told_what_to_install_or_to_take_instead(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("rehead.nets.card.metadata.version", Mock(side_effect=PackageNotFoundError("timm")))
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == library else found(wanted))
    with pytest.raises(MissingExtra) as error:
        check_backbone("resnet18", None, {}, "pool", tmp_path)
    assert str(error.value) == (
        f"The backbone resnet18 needs the library {library!r}, which is not installed.\n"
        'Install it with: pip install "rehead[tune]"; or take a bundle as the backbone, which needs none: --backbone BUNDLE'
    )


def test_a_graph_that_cannot_be_run_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class InDoubles(nn.Module):  # which ONNX has, and ONNX Runtime does not compute
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 3).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x.double()).mean((2, 3)).float()

    made = backbone.load_backbone("test_resnet", pretrained=False)
    torch.save(made.network.state_dict(), tmp_path / "w.pt")
    how = {"weights": tmp_path / "w.pt", "arguments": {}, "cut": "pool", "cache": tmp_path, "progress": Silent()}
    monkeypatch.setattr(prefixes, "export_prefix", lambda _, *to: export_prefix(InDoubles().eval(), *to))
    with pytest.raises(BackboneError, match="test_resnet cannot be run by ONNX Runtime") as caught:
        ready_prefix("test_resnet", **how)
    assert "Conv" in caught.value.why
    assert not [*tmp_path.rglob("*.onnx")]
    monkeypatch.undo()
    assert OnnxEngine(ready_prefix("test_resnet", **how), "cpu").name == "onnxruntime"
