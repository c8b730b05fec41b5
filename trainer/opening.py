"""Loading a base onto its device: whole folders, single files, and weights kept in fewer bits."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import logging as transformers_logging

from trainer.attention import use_cpu_blocks
from trainer.base import BaseError, Family, base_ids, family_of, single_file
from trainer.compiling import compile_blocks
from trainer.device import find_device
from trainer.flux import FluxBase
from trainer.klein import KleinBase
from trainer.packing import pack_linears
from trainer.products import onednn_is_faster, use_onednn
from trainer.settings import BaseSettings, Quantize
from trainer.streaming import stream_blocks

_CLASSES: dict[Family, tuple[str, str, type[FluxBase]]] = {
    Family.flux: ("FluxPipeline", "FluxTransformer2DModel", FluxBase),
    Family.klein: ("Flux2KleinPipeline", "Flux2Transformer2DModel", KleinBase),
}
MOST_THREADS = 4  # of those that torch finds; measured with two only, and a small base has no work for many
# Endings of the scales in files whose weights mean nothing without them: scaled fp8, bitsandbytes, GPTQ.
_PACKED = ("scale_weight", "weight_scale", "scaled_fp8", ".comfy_quant", ".absmax", ".qweight", ".quant_map")


def open_base(folder: Path, settings: BaseSettings) -> FluxBase:
    """Load a folder that `trainer.base.find_base` has found complete.

    Raises:
        BaseError: a device this machine lacks, or weights that its memory does not hold.
    """
    device = find_device(settings)
    torch.set_num_threads(settings.threads or min(torch.get_num_threads(), MOST_THREADS))
    pipeline_name, _, base_class = _CLASSES[family_of(folder)]
    parts: dict[str, Any] = {}
    try:
        with _quiet():
            if settings.quantize in (Quantize.nf4, Quantize.int8) or single_file(settings) is not None:
                parts["transformer"] = _transformer(folder, settings, device)
            dtypes = {"default": getattr(torch, settings.dtype), "vae": torch.float32}
            loader = getattr(diffusers, pipeline_name)
            pipeline = loader.from_pretrained(str(folder), dtype=dtypes, local_files_only=True, **parts)
        _place(pipeline, settings, device)
    except torch.OutOfMemoryError as error:
        raise BaseError(
            f"the base does not fit {device}: choose memory=24gb, memory=16gb or memory=12gb"
            f" (now base.quantize={settings.quantize}, base.offload={str(settings.offload).lower()})"
        ) from error
    except BaseError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged file leads to
        raise BaseError(
            f"`base.path`={settings.path}: what is in {folder} cannot be loaded, a file may be damaged or half fetched"
            f" ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
        ) from error
    if device.type == "cpu" and base_class is FluxBase:
        use_cpu_blocks(pipeline.transformer)
    if device.type == "cpu":
        pipeline.vae.to(memory_format=torch.channels_last)  # a quarter faster; no numbers change but the last bits
    if settings.compile:
        compile_blocks(pipeline.transformer)
    elif device.type == "cpu" and settings.quantize == Quantize.none and onednn_is_faster():
        use_onednn(pipeline.transformer)
    return base_class(pipeline, settings, base_ids(settings), device)


def _place(pipeline: diffusers.DiffusionPipeline, settings: BaseSettings, device: torch.device) -> None:
    """Freeze everything and bring to the device what is to be there from the start."""
    transformer: Any = pipeline.transformer
    encoders = [getattr(pipeline, name, None) for name in ("vae", "text_encoder", "text_encoder_2")]
    others: list[nn.Module] = [part for part in encoders if part is not None]
    for part in (transformer, *others):
        part.requires_grad_(False).eval()
    if settings.quantize == Quantize.fp8:  # before it moves: in bfloat16 it would not fit the card that it is cast for
        transformer.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=getattr(torch, settings.dtype)
        )
    stacks = (transformer.transformer_blocks, transformer.single_transformer_blocks)
    streamed = stacks if settings.group_offload else ()
    moved = [transformer] if not streamed else [p for p in transformer.children() if all(p is not s for s in streamed)]
    for part in moved if settings.offload else [*moved, *others]:
        part.to(device)
    if streamed:
        stream_blocks(chain(*streamed), device)


def _transformer(folder: Path, settings: BaseSettings, device: torch.device) -> nn.Module:
    """The transformer from its own file, or with its weights packed while they are read."""
    model = getattr(diffusers, _CLASSES[family_of(folder)][1])
    asked: dict[str, Any] = {"dtype": getattr(torch, settings.dtype), "local_files_only": True}
    file = single_file(settings)
    if file is None:
        if (packing := _packing(settings)) is not None:
            asked["quantization_config"] = packing
        return model.from_pretrained(str(folder), subfolder="transformer", **asked)
    _check_file(file, folder)
    try:
        loaded: nn.Module = model.from_single_file(str(file), config=str(folder), subfolder="transformer", **asked)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        said = str(error).splitlines()[0][:200]
        if isinstance(error, LookupError):  # a name that its reader looks for
            said = f"it lacks {error if isinstance(error, KeyError) else 'layers'}"
        raise BaseError(
            f"`base.path`={settings.path} does not hold the weights of a {model.__name__} of the shape in"
            f" {folder / 'transformer'}: {said}"
        ) from error
    if settings.quantize in (Quantize.nf4, Quantize.int8):
        pack_linears(loaded, settings.quantize, asked["dtype"], device)
    return loaded


def _check_file(file: Path, folder: Path) -> None:
    """Refuse a single file that would load as something else than it is, or not at all; its names tell.

    Raises:
        BaseError: saying what it is and which to take.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise BaseError(f"`base.path`={file} is not a safetensors file, or not all of one: {error}") from error
    if any(".lora_" in name for name in names):
        raise BaseError(f"`base.path`={file} is a LoRA; base.path takes the transformer it is applied to")
    if not any(re.search(r"(double|transformer)_blocks\.0\.", name) for name in names):
        raise BaseError(f"`base.path`={file} does not hold the weights of a Flux transformer, but {names[0]}, …")
    packed = next((name for name in names if name.endswith(_PACKED)), None)
    if packed is not None:
        raise BaseError(
            f"`base.path`={file} holds weights packed for other tools ({packed}): take the file in bfloat16 or plain"
            " fp8; base.quantize packs it here"
        )
    if family_of(folder) == Family.flux:
        config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        guided = any("guidance_in." in name or "guidance_embedder." in name for name in names)
        if guided != bool(config.get("guidance_embeds")):
            kinds = {True: "FLUX.1-dev's or Krea-dev's", False: "FLUX.1-schnell's"}
            raise BaseError(
                f"`base.path`={file} is {kinds[guided]} transformer, `base.parts` is {kinds[not guided]}: name the"
                " parts of the same model"
            )


def _packing(settings: BaseSettings) -> Any:
    """diffusers' settings for weights in fewer bits; None: as they are, or packed after loading."""
    if settings.quantize == Quantize.nf4:
        return diffusers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
        )
    if settings.quantize == Quantize.int8:
        from torchao.quantization import Int8WeightOnlyConfig

        return diffusers.TorchAoConfig(Int8WeightOnlyConfig())
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading prints seven progress bars; give back what the user had set."""
    shown = [logging for logging in (diffusers_logging, transformers_logging) if logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()
