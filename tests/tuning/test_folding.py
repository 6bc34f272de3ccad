"""Norms inside convolutions: the same outputs and the same gradients, and nothing is left changed."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from rehead.nets.chain import Chain
from rehead.tuning.folding import Folding
from rehead.tuning.modes import set_modes


def taken_apart(name: str) -> Chain:
    """A network with norms that do something, all of it learning, in float64."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for wide in (norm.running_var, norm.weight):
                wide.data.uniform_(0.5, 1.5)
            for narrow in (norm.running_mean, norm.bias):
                narrow.data.normal_(0, 0.1)
    chain = Chain(network, (64, 64))
    set_modes(network.double(), {name for name, _ in network.named_parameters()})
    return chain


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    out = model(x)
    out.square().mean().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return out.detach(), found


@pytest.mark.parametrize(("name", "n_pairs"), [("resnet10t", 14), ("tf_efficientnet_lite0", 49), ("densenet121", 59)])
def test_outputs_and_gradients_are_those_of_convolution_and_norm(name: str, n_pairs: int) -> None:
    chain = taken_apart(name)
    assert len(chain.normed()) == n_pairs
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before, wanted = gradients(chain.network, x)
    with Folding(chain.network, chain.normed()).used():
        after, found = gradients(chain.network, x)
    torch.testing.assert_close(after, before)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, msg=key)


def test_pieces_of_the_network_run_so_too_and_all_is_as_it_was_behind_it() -> None:
    chain = taken_apart("resnet10t")
    network = chain.network.eval()
    piece = chain.piece(-1, chain.layers[-1].end)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    names, before = [name for name, _ in network.named_parameters()], piece(x)
    with Folding(piece, chain.normed()).used(), torch.no_grad():
        for _, norm in chain.normed():
            norm.register_forward_hook(lambda _, inputs, out: torch.testing.assert_close(out, inputs[0]))
        torch.testing.assert_close(piece(x), before)
    assert not any("forward" in vars(module) for module in network.modules())
    assert names == [name for name, _ in network.named_parameters()]


@pytest.mark.long
def test_less_is_kept_for_the_way_back() -> None:
    def kept(network: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def noted(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
            out = network(torch.randn(32, 3, 128, 128, dtype=torch.float64))
        return sum(sizes.values()) if out.requires_grad else 0

    chain = taken_apart("resnet10t")
    plain = kept(chain.network)
    with Folding(chain.network, chain.normed()).used():
        assert kept(chain.network) < 0.75 * plain
