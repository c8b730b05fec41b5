"""oneDNN's products against torch's own, forward and backward."""

import pytest
import torch
from torch import nn

from trainer.products import FrozenLinear, onednn_is_faster, use_onednn


@pytest.mark.skipif(not onednn_is_faster(), reason="MKL is as fast on this CPU")
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_their_gradients_are_those_of_torch(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = nn.Linear(48, 80, bias=bias).requires_grad_(False)
    wide = nn.Linear(48, 80, bias=bias).requires_grad_(False)
    wide.load_state_dict(plain.state_dict())
    use_onednn(wide)
    assert type(wide) is FrozenLinear
    x = torch.randn(2, 30, 48, generator=generator, requires_grad=True)
    results = []
    for layer in (plain, wide):
        y = layer(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        results.append((y, gradient))
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(*results, strict=True))


def test_layers_that_learn_are_left_to_torch() -> None:
    layer = nn.Linear(8, 8)
    use_onednn(layer)
    layer(torch.ones(1, 8)).sum().backward()
    assert layer.weight.grad is not None
