"""What can be set in the trainer, with units, meaning and rules. Nothing here imports torch.

Sides are always written in FLUX's pixels (512, 768, 1024). A base of another size has a `scale` that turns them into
its own pixels; only the plan and the sampler apply it.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Strategy(StrEnum):
    """How the caption of an example is made."""

    none = "none"  # captionless: the empty text
    trigger = "trigger"  # the trigger word alone
    original = "original"  # the sidecar text as found
    tags = "tags"  # booru tags, from the sidecar or a tagger
    vlm = "vlm"  # a vision-language model describes the picture
    tags_vlm = "tags_vlm"  # the same, with the picture's tags at hand
    edited = "edited"  # the sidecar text without its style words
    subject_only = "subject_only"  # the subject and nothing else


class Strip(StrEnum):
    """The classes of words that can be taken out of a caption."""

    style = "style"  # "vintage", "in the style of …"
    medium = "medium"  # "engraving", "watercolor"
    technique = "technique"  # "cross-hatching", "fine lines"
    emotion = "emotion"  # "melancholic", "serene mood"


class Length(StrEnum):
    """How much of a caption is kept."""

    as_is = "as_is"  # all of it
    half = "half"  # half of its words, cut where English allows


class TriggerPlace(StrEnum):
    """Where the trigger word and the class phrase stand."""

    front = "front"  # "antmy drawing, a heart"
    end = "end"  # "a heart, antmy drawing"


class Targets(StrEnum):
    """Which linear layers of the transformer get a LoRA."""

    attention = "attention"  # to_q, to_k, to_v, to_out of the image stream (190 layers in FLUX.1)
    diffusers = "diffusers"  # the default of diffusers' Flux script: attention of both streams, feed-forward (342)
    all_linear = "all_linear"  # every linear layer of the blocks but the modulation (418)


class TimestepDensity(StrEnum):
    """How the noise level sigma of a training picture is drawn."""

    sigmoid = "sigmoid"  # sigmoid of a normal number
    shift = "shift"  # sigmoid, then shifted by `shift` whatever the size
    flux_shift = "flux_shift"  # sigmoid, then shifted by the number of tokens as the sampler does
    uniform = "uniform"  # uniform in (0, 1)
    logit_normal = "logit_normal"  # sigmoid of a normal number with `logit_mean` and `logit_std`


class Loss(StrEnum):
    """How far a prediction is from its target."""

    mse = "mse"  # mean squared error
    huber = "huber"  # squared up to `huber_delta`, linear beyond: outliers count less


class OptimizerName(StrEnum):
    """Who turns gradients into steps."""

    adamw = "adamw"  # torch's
    adamw8bit = "adamw8bit"  # bitsandbytes': its averages take a quarter of the memory
    adafactor = "adafactor"  # transformers': hardly any memory of its own
    prodigy = "prodigy"  # prodigyopt's: finds its rate, `learning_rate` is a factor on it


class Kind(StrEnum):
    """What is trained beside each layer, as peft makes it."""

    lora = "lora"  # down and up
    dora = "dora"  # LoRA and the length of each weight's rows
    lokr = "lokr"  # a Kronecker product


class FileDtype(StrEnum):
    """The number format of a LoRA file; training is in float32 whatever it is."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantize(StrEnum):
    """How the frozen transformer's weights are kept; they are computed with in `base.dtype`."""

    none = "none"  # as `base.dtype` says: 2 bytes a weight in bfloat16
    fp8 = "fp8"  # 1 byte, diffusers' layerwise casting
    int8 = "int8"  # 1 byte, torchao
    nf4 = "nf4"  # half a byte, bitsandbytes


class Dtype(StrEnum):
    """The number format of the base's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Group(StrEnum):
    """What a prompt asks for, seen from the training pictures."""

    unrelated = "unrelated"  # a subject the training never showed
    in_domain = "in_domain"  # a subject like those trained on


@dataclass
class CaptionSettings:
    strategy: Strategy = Strategy.subject_only  # how captions are made
    trigger: str = ""  # word that stands with every caption; empty: none
    trigger_place: TriggerPlace = TriggerPlace.front  # where it stands
    class_phrase: str = ""  # what kind of picture it is, behind the trigger word: "antmy drawing, a heart"
    strip: list[Strip] = field(default_factory=lambda: list(Strip))  # classes `tags`, `edited`, `subject_only` remove
    length: Length = Length.as_is  # how much of the caption is kept, trigger and class phrase not counted
    max_tokens: int | None = None  # at most that many tokens of the base's tokenizer (T5) are kept, likewise; null: all
    dropout: float = 0.0  # probability that a picture is shown without its caption at a visit
    shuffle_tags: bool = False  # shuffle the comma separated parts anew each epoch (`original` and `tags` only)
    keep_tokens: int = 0  # that many parts stay in front when shuffled, the trigger not counted
    sheet: str = ""  # caption sheet (CSV) whose edited rows win; empty: captions.csv in the study's folder

    def __post_init__(self) -> None:
        _between("captions.dropout", self.dropout, 0.0, 1.0)
        _at_least("captions.keep_tokens", self.keep_tokens, 0)
        if self.max_tokens is not None:
            _at_least("captions.max_tokens", self.max_tokens, 1)
        for name in ("trigger", "class_phrase"):
            if self.strategy == Strategy.none and getattr(self, name):
                raise ValueError(
                    f"`captions.strategy=none` trains without text and cannot carry words, got"
                    f" `captions.{name}={getattr(self, name)}`: use captions.strategy=trigger, or empty it"
                )
        if self.strategy == Strategy.trigger and not self.trigger.strip():
            raise ValueError("`captions.strategy=trigger` needs a word: set `captions.trigger`, which is empty")
        if self.shuffle_tags and self.strategy not in (Strategy.original, Strategy.tags):
            raise ValueError(
                f"`captions.shuffle_tags` works on comma separated parts, so on the strategies original and tags only,"
                f" got `captions.strategy={self.strategy}`"
            )


@dataclass
class DataSettings:
    path: str = ""  # folder of training pictures with NAME.txt (caption) and NAME.tags beside them
    references: str = ""  # folder of held-out pictures of the style, never trained on
    trigger: str = ""  # the word that stands for this style: what captions=trigger trains with
    limit: int | None = None  # train on that many pictures, drawn by `subset_seed`; null: all
    subset_seed: int = 0  # which pictures the limit keeps; a smaller limit keeps a subset of a larger one's
    masks: str = ""  # folder with a mask of each picture's name, white where the loss counts; alpha: the pictures' own

    def __post_init__(self) -> None:
        if self.limit is not None:
            _at_least("data.limit", self.limit, 1)


@dataclass
class MixSettings:
    # side in FLUX px -> times an epoch a picture is shown at that side; 0 drops the side; a new one: +mix.repeats.640=2
    repeats: dict[int, int] = field(default_factory=lambda: {512: 5})
    batch_size: int = 4  # pictures per batch; a batch never mixes buckets or sides
    # side -> batch size, where it differs from `batch_size`; on the command line +mix.batch_sizes.256=4
    batch_sizes: dict[int, int] = field(default_factory=dict)
    gradient_accumulation: int = 1  # batches per optimiser step
    random_side: bool = False  # show each picture once an epoch at one side, drawn with the repeats as odds
    no_upscale: bool = True  # a picture smaller than the side keeps its size
    min_side: int | None = None  # smallest bucket edge in FLUX px, upscaling mode only; null: half the side
    max_side: int | None = None  # largest bucket edge in FLUX px, upscaling mode only; null: twice the side
    bucket_step: int | None = (
        None  # FLUX px that bucket edges are multiples of; null: the base's; kohya takes 32 and 64
    )

    def __post_init__(self) -> None:
        for side, repeats in self.repeats.items():
            _at_least("mix.repeats: every side", side, 1)
            _at_least(f"mix.repeats.{side}", repeats, 0)
        if not any(self.repeats.values()):
            raise ValueError(f"`mix.repeats` must show the pictures at one side at least, got {self.repeats}")
        _at_least("mix.batch_size", self.batch_size, 1)
        for side, size in self.batch_sizes.items():
            _at_least(f"mix.batch_sizes.{side}", size, 1)
            if side not in self.repeats:
                raise ValueError(f"`mix.batch_sizes.{side}` names no side of `mix.repeats` {sorted(self.repeats)}")
        _at_least("mix.gradient_accumulation", self.gradient_accumulation, 1)
        limits = {"min_side": self.min_side, "max_side": self.max_side, "bucket_step": self.bucket_step}
        for name, value in limits.items():
            if value is not None:
                _at_least(f"mix.{name}", value, 1)


@dataclass
class BudgetSettings:
    """How long to train: `images_seen`, unless one of the others is given. The last step may overrun by its rest."""

    images_seen: int = 2400  # training pictures shown in all, whatever the mix
    steps: int | None = None  # optimiser steps
    epochs: float | None = None  # passes through the plan
    megapixels: float | None = None  # millions of FLUX px shown: what a training costs, roughly
    seconds: float | None = None  # of training; where it ends depends on the machine

    def __post_init__(self) -> None:
        _at_least("budget.images_seen", self.images_seen, 1)
        given = self._given()
        for name, value in given.items():
            _above(f"budget.{name}", value, 0)
        if len(given) > 1:
            raise ValueError(f"`budget` takes one unit, got {' and '.join(given)}: set all but one to null")

    def _given(self) -> dict[str, float]:
        units = {"steps": self.steps, "epochs": self.epochs, "megapixels": self.megapixels, "seconds": self.seconds}
        return {name: value for name, value in units.items() if value is not None}

    @property
    def unit(self) -> str:
        """Name of the unit that counts."""
        return next(iter(self._given()), "images_seen")

    @property
    def amount(self) -> float:
        """How much of that unit."""
        return next(iter(self._given().values()), self.images_seen)


@dataclass
class LoraSettings:
    rank: int = 16  # inner width of the LoRA
    alpha: float | None = None  # strength is alpha / rank; null: alpha = rank, which every tool reads alike
    targets: Targets = Targets.all_linear  # which layers
    # patterns that a layer's name must match as well: ["single_transformer_blocks.*", "*.attn.to_q"]; empty: all
    layers: list[str] = field(default_factory=list)
    kind: Kind = Kind.lora  # what is trained beside each layer
    rank_dropout: float = 0.0  # probability that an inner channel is left out, by picture and step; kind lora only
    file_dtype: FileDtype = FileDtype.float32  # of the LoRA file; the others halve it

    def __post_init__(self) -> None:
        _at_least("lora.rank", self.rank, 1)
        _between("lora.rank_dropout", self.rank_dropout, 0.0, 0.9)
        if self.rank_dropout and self.kind != Kind.lora:
            raise ValueError(f"`lora.rank_dropout` works with `lora.kind=lora`, got `lora.kind={self.kind}`")
        if self.alpha is not None:
            _above("lora.alpha", self.alpha, 0.0)


@dataclass
class OptimizerSettings:
    name: OptimizerName = OptimizerName.adamw  # who turns gradients into steps
    learning_rate: float = 1e-3  # constant after the warm-up; with prodigy a factor, 1
    weight_decay: float = 0.01  # decoupled
    warmup_steps: int = 10  # steps in which the rate grows linearly; no schedule knows the budget
    max_grad_norm: float = 1.0  # gradients are clipped to this length; 0: never
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # memory of the two averages; adafactor has none

    def __post_init__(self) -> None:
        _above("optimizer.learning_rate", self.learning_rate, 0.0)
        _at_least("optimizer.weight_decay", self.weight_decay, 0.0)
        _at_least("optimizer.warmup_steps", self.warmup_steps, 0)
        _at_least("optimizer.max_grad_norm", self.max_grad_norm, 0.0)
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"`optimizer.betas` must be two numbers in [0, 1), got {self.betas}")
        if self.name == OptimizerName.prodigy and self.learning_rate < 0.1:
            raise ValueError(
                "`optimizer.name=prodigy` finds its own rate and takes `optimizer.learning_rate` as a factor on it:"
                f" set it to 1, got {self.learning_rate} (the group optimizer=prodigy sets both)"
            )


@dataclass
class TrainSettings:
    lora: LoraSettings = field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    timesteps: TimestepDensity = TimestepDensity.sigmoid  # how sigma is drawn
    shift: float = 3.1582  # for timesteps=shift; e^1.15, what FLUX.1-dev uses at 1024 px
    logit_mean: float = 0.0  # for timesteps=logit_normal; above 0: more noise
    logit_std: float = 1.0  # for timesteps=logit_normal
    loss: Loss = Loss.mse  # how far a prediction is from its target
    huber_delta: float = 0.1  # for loss=huber: errors beyond it count linearly
    ema: float = 0.0  # share of the average that a step keeps (0.99); the files hold the average; 0: none
    validation: int = 0  # noise levels at which each held-out picture's loss is read at every checkpoint; 0: none
    checkpoints: int = 2  # how many are yielded, evenly spaced in the budget, the last always
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third slower
    checkpointed_share: float = 1.0  # with gradient_checkpointing: the share of the blocks that recompute
    seed: int = 0  # of LoRA weights, order, noise, sigmas and caption dropout

    def __post_init__(self) -> None:
        _above("train.shift", self.shift, 0.0)
        _above("train.logit_std", self.logit_std, 0.0)
        _above("train.huber_delta", self.huber_delta, 0.0)
        _between("train.ema", self.ema, 0.0, 0.9999)
        _at_least("train.validation", self.validation, 0)
        _between("train.checkpointed_share", self.checkpointed_share, 0.0, 1.0)
        _at_least("train.checkpoints", self.checkpoints, 1)


@dataclass
class BaseSettings:
    path: str = "sandbox/weights/base"  # diffusers folder, hub id whose weights are here, or transformer .safetensors
    parts: str = ""  # with a .safetensors: the folder or hub id with VAE, text encoders and tokenizers
    scale: float = 1.0  # this base's px per FLUX px (0.125: 512 means 64 px)
    dtype: Dtype = Dtype.float32  # of the base's weights; LoRA weights are always float32
    device: str = "auto"  # cpu, cuda, cuda:1, …; auto: cuda if there is one
    max_text_tokens: int = 512  # T5 tokens a caption or prompt is cut or padded to
    threads: int = 0  # CPU threads of torch; 0: the machine's, four at most; OMP_NUM_THREADS bounds them
    offload: bool = False  # have transformer, text encoders and VAE on the device one at a time (small cards)
    quantize: Quantize = Quantize.none  # how the transformer's weights are kept
    group_offload: bool = False  # blocks lie in main memory until they compute; with gradient_checkpointing, CUDA only
    compile: bool = False  # the blocks, by torch: minutes when a study begins, for long ones on a card (not measured)

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ValueError("`base.path` must name a diffusers Flux folder or a hub id, it is empty")
        _above("base.scale", self.scale, 0.0)
        if self.path.endswith(".safetensors") and not self.parts.strip():
            raise ValueError(
                f"`base.path={self.path}` holds the transformer alone: set `base.parts` to the diffusers folder or hub"
                " id with the VAE and the text encoders, such as black-forest-labs/FLUX.1-dev"
            )
        _at_least("base.max_text_tokens", self.max_text_tokens, 1)
        _at_least("base.threads", self.threads, 0)


@dataclass
class SampleSettings:
    steps: int = 20  # Euler steps
    guidance: float = 3.5  # value fed to the guidance embedding; one forward a step
    batch_size: int = 8  # prompts of equal size drawn together

    def __post_init__(self) -> None:
        _at_least("sample.steps", self.steps, 1)
        _at_least("sample.guidance", self.guidance, 0.0)
        _at_least("sample.batch_size", self.batch_size, 1)


@dataclass
class Prompt:
    text: str = ""  # what is asked for
    seed: int = 0  # of the noise, with the size
    width: int = 512  # FLUX px
    height: int = 512  # FLUX px
    group: Group = Group.unrelated  # objectives are read on unrelated prompts only

    def __post_init__(self) -> None:
        _at_least("prompt.width", self.width, 1)
        _at_least("prompt.height", self.height, 1)


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}")


def _above(name: str, value: float, bound: float) -> None:
    if not bound < value < float("inf"):
        raise ValueError(f"`{name}` must be a finite number above {bound}, got {value}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"`{name}` must lie between {low} and {high}, got {value}")
