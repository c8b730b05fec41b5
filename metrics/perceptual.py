"""LPIPS from files only, and as vectors, so that every pair of many pictures is one matrix.

Serves diversity and memorisation, where it belongs: it tells near-copies from different pictures. It is no measure of
composition (a change of style saturates it, facts/metrics.md 0.5) and stands in the tests as a negative control.

The package ships only the linear heads; its constructor downloads the trunk. Here the trunk comes from a file: either
`LPIPS.state_dict()` or a torchvision trunk such as alexnet-owt-7be5be79.pth, mapped onto lpips' slices. Both are read
as .safetensors or, by any other suffix, as a pickle of tensors alone.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from metrics.encoder import choose_device, file_hash
from metrics.images import ScoreError, resized
from metrics.settings import LpipsNet


class Lpips:
    """Vectors whose squared Euclidean distance is the LPIPS of two pictures, at `side` x `side` px."""

    def __init__(
        self,
        weights: str,
        net: LpipsNet = LpipsNet.squeeze,
        *,
        side: int = 64,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        """Load heads and trunk.

        Raises:
            ScoreError: if no file is configured, it is missing, or it does not hold this trunk.
        """
        if not weights:
            raise ScoreError("LPIPS is asked for, but `lpips_weights` names no file; set it to a trunk file")
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ScoreError(
                f"`lpips_weights` is {weights!r}, which is not a file; give LPIPS.state_dict() or a torchvision trunk"
            )
        self.id = f"lpips-{net}:{file_hash(path)}"
        self.side, self.batch_size = side, batch_size
        self.device = choose_device(device)
        self.model: Any = load_lpips(path, net).to(self.device)

    @torch.inference_mode()
    def vectors(self, images: Iterable[Tensor]) -> Tensor:
        """Return (N, D) float32 on the CPU: per layer, sqrt(head / pixels) times the unit-normalised activations.

        Args:
            images: of any size; they are taken one by one, so that crops need not all be there at once.
        """
        found = []
        small = (resized([image], self.side, self.side) for image in images)
        while batch := list(islice(small, self.batch_size)):
            pixels = torch.cat(batch).to(self.device)
            layers = self.model.net.forward(self.model.scaling_layer(2 * pixels - 1))
            parts = []
            for activation, head in zip(layers, self.model.lins, strict=True):
                unit = activation / (activation.norm(dim=1, keepdim=True) + 1e-10)  # lpips.normalize_tensor
                weight = head.model[-1].weight.clamp_min(0)  # (1, C, 1, 1)
                parts.append((unit * (weight / unit[0, 0].numel()).sqrt()).flatten(1))
            found.append(torch.cat(parts, 1).float().cpu())
        return torch.cat(found)


def lpips_distances(first: Tensor, second: Tensor, squares: Tensor | None = None) -> Tensor:
    """Return the LPIPS of every pair of vectors, (N, M), >= 0, lower is more alike: 0 for equal pictures (to 1e-5).

    Args:
        squares: (M,) lengths of the second vectors, squared, where they are known; longer to sum than the products.

    Fooled by: a change of style, which it counts as a large difference whatever the layout.
    Source: Zhang et al. 2018, eq. 1, v0.1 heads; |a - b|^2 = |a|^2 + |b|^2 - 2ab makes it one matrix product.
    """
    squares = second.square().sum(1) if squares is None else squares
    return (first.square().sum(1)[:, None] + squares - 2 * first @ second.T).clamp_min(0)


def load_lpips(path: Path, net: LpipsNet) -> Any:
    """Return lpips.LPIPS with the trunk of `path`, every trunk tensor checked against the file.

    Raises:
        ScoreError: if the file holds another trunk, or is no weights file.
    """
    saved = _read_weights(path)
    complete = any(name.startswith("net.slice") for name in saved)
    model = _build(net)
    wanted = model.state_dict()
    if complete:
        trunk = {name: saved.get(name) for name in wanted if name.startswith(("net.", "lin"))}
    else:
        # lpips' slices keep torchvision's numbers: net.slice2.4.weight is features.4.weight.
        trunk = {name: saved.get("features." + name.split(".", 2)[2]) for name in wanted if name.startswith("net.")}
    for name, tensor in trunk.items():
        if tensor is None or tensor.shape != wanted[name].shape:
            fault = "is missing" if tensor is None else f"is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise ScoreError(f"`lpips_weights` {str(path)!r} does not fit lpips_net={net}: {name} {fault}")
    model.load_state_dict(trunk, strict=False)  # the heads are the package's where the file has none
    for name, value in model.state_dict().items():
        given = trunk.get(name)
        if given is not None and not torch.equal(value, given.to(value.dtype)):
            raise ScoreError(f"`lpips_weights` {str(path)!r}: lpips did not take over {name}")
    return model.requires_grad_(False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ScoreError(f"`lpips_weights` {str(path)!r} is not a file of weights: {error}") from error


def _build(net: LpipsNet) -> Any:
    """Return lpips.LPIPS without a download: the package's heads on a random trunk."""
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # torchvision warns about lpips' `pretrained=`; nothing here depends on it.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return lpips.LPIPS(net=net.value, pnet_rand=True, verbose=False)
