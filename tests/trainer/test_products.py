"""oneDNN's products against torch's own, forward and backward."""

import pytest
import torch
from torch import nn

from trainer.products import FrozenLinear, gelu_after, onednn_is_faster, use_onednn


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


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch comes without oneDNN")
@pytest.mark.parametrize("learning", [True, False])
def test_a_gelu_inside_the_product_is_torchs(learning: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(48, 80).requires_grad_(False)
    x = 4 * torch.randn(2, 30, 48, generator=generator, requires_grad=learning)
    expected = nn.functional.gelu(layer(x), approximate="tanh")
    use_onednn(layer)
    with torch.set_grad_enabled(learning):
        found = gelu_after(layer, x)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    if learning:
        pair = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
        assert torch.allclose(*pair, atol=1e-4, rtol=1e-4)


def test_layers_that_learn_are_left_to_torch() -> None:
    layer = nn.Linear(8, 8)
    use_onednn(layer)
    layer(torch.ones(1, 8)).sum().backward()
    assert layer.weight.grad is not None
