"""A captioning model of transformers on this machine: Qwen-VL, LLaVA and JoyCaption by chat, Florence-2 by task.

The model is a folder or a hub id whose weights are already here; nothing is downloaded behind anyone's back, and no
code of a model's own is run.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from trainer.answers import CaptionerDown
from trainer.captioner_settings import CaptionerSettings
from trainer.viewing import view

_TEMPERATURE = 0.6  # of a second attempt: the likeliest words would be the same again


class LocalCaptioner:
    """An image-text-to-text model, loaded at the first question."""

    def __init__(self, settings: CaptionerSettings) -> None:
        self.settings = settings
        self.name = f"model {settings.model} on this machine"
        self._folder = model_folder("captioner.model", settings.model)
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, prompt: str, picture: Path | None, *, attempt: int) -> str:
        """See `trainer.answers.Captioner`."""
        import torch

        processor, model = self._load()
        shown = _upright(picture, self.settings.picture_px) if picture else None
        inputs = self._inputs(processor, prompt, shown).to(model.device, model.dtype)
        warm = self.settings.temperature or (_TEMPERATURE if attempt else 0.0)
        sampling = {"do_sample": True, "temperature": warm} if warm else {"do_sample": False}
        torch.manual_seed(attempt)
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=self.settings.max_tokens, **sampling)
        if not model.config.is_encoder_decoder:  # a decoder's answer begins with the question
            made = made[:, inputs["input_ids"].shape[1] :]
        return str(processor.batch_decode(made, skip_special_tokens=True)[0])

    def _inputs(self, processor: Any, prompt: str, picture: Image.Image | None) -> Any:
        if self.settings.task:
            return processor(text=self.settings.task, images=picture, return_tensors="pt")
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        if picture is not None:
            parts.insert(0, {"type": "image", "image": picture})
        return processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor

            name = self.settings.device
            device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
            dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
            try:
                processor = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
                model = AutoModelForImageTextToText.from_pretrained(
                    self._folder, dtype=dtype, local_files_only=True, use_safetensors=True
                )
            except (OSError, ValueError, KeyError) as error:
                raise CaptionerDown(
                    f"captioner.model={self.settings.model} cannot be loaded as an image-text-to-text model of"
                    f" transformers: {str(error).splitlines()[0]}"
                ) from error
            if not self.settings.task and not getattr(processor, "chat_template", None):
                raise CaptionerDown(
                    f"captioner.model={self.settings.model} has no chat template: name what it is told instead in"
                    " captioner.task, such as <MORE_DETAILED_CAPTION>, and set captioner.rewrites=false"
                )
            self._loaded = processor, model.to(device).eval()
        return self._loaded


def model_folder(key: str, model: str) -> Path:
    """The folder of a model: as named, or of a hub id in the hub's local cache.

    Raises:
        CaptionerDown: neither is there.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(model, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):
            raise CaptionerDown(
                f"{key}={model}: neither a folder nor weights on this machine. To fetch them:\n    hf download {model}"
            ) from None
    raise CaptionerDown(f"{key}={model}: no such folder")


def _upright(picture: Path, longest_px: int) -> Image.Image:
    shown = view(picture)
    shown.thumbnail((longest_px, longest_px))
    return shown
