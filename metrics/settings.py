"""What can be set about the scores, with units and the way every threshold was found. Imports no torch.

Values live in `conf/score/`; the defaults here are those of the sandbox, so that `ScoreSettings()` works in a
checkout. A threshold that is marked *proposal* was set on drawn scenes and has to be set again on the first study with
a real base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Constraint(StrEnum):
    """What a LoRA must not do, whatever its style and composition; each value is <= 0 when fine."""

    leakage = "leakage"  # training subjects appear where they were not asked for
    memorisation = "memorisation"  # samples are copies of training pictures
    failures = "failures"  # samples that are blank, clipped, noisy or torn, or have parts exchanged
    adherence = "adherence"  # the prompt is followed less than by the base
    diversity = "diversity"  # all prompts look alike
    lines = "lines"  # lines and contrast outside of what base and style have


@dataclass(frozen=True)
class Threshold:
    """What a constraint is held against."""

    setting: str  # of ScoreSettings
    mean_of: str  # the value per picture that is read; empty: one number of the whole set
    is_least: bool = False  # whether it bounds from below


THRESHOLDS = {
    Constraint.leakage: Threshold("leak_rate", "leak"),
    Constraint.memorisation: Threshold("copy_rate", "copy"),
    Constraint.failures: Threshold("failure_rate", "failed"),
    Constraint.adherence: Threshold("adherence_loss", "adherence"),
    Constraint.diversity: Threshold("diversity_ratio", "", is_least=True),
    Constraint.lines: Threshold("line_quality", "line_quality", is_least=True),
}


class LpipsNet(StrEnum):
    """The trunks lpips has heads for."""

    alex = "alex"
    squeeze = "squeeze"
    vgg = "vgg"


class StyleEncoder(StrEnum):
    """What style is seen with; the encoders are in `metrics.vision`."""

    open_clip = "open_clip"  # statistics of the layers of `encoder`
    descriptor = "descriptor"  # hand-made statistics of colour, spectrum and texture; needs no weights
    csd = "csd"  # contrastive style descriptors, "csd:ARCHITECTURE@WEIGHTS_FILE"
    timm = "timm"  # a model of timm such as DINOv2, "timm:NAME@WEIGHTS_FILE"


def style_encoder(name: str) -> StyleEncoder:
    """Return the kind that an entry of `style_encoders` names.

    Raises:
        ValueError: for an unknown kind, or one that needs a file and names none.
    """
    kind, _, where = name.partition(":")
    if kind not in list(StyleEncoder):
        raise ValueError(f"`style_encoders` knows {', '.join(StyleEncoder)}, got {name!r}")
    if (kind in (StyleEncoder.csd, StyleEncoder.timm)) != ("@" in where):
        raise ValueError(
            f"`style_encoders`: write csd:ARCHITECTURE@FILE, timm:NAME@FILE, open_clip or descriptor, got {name!r}"
        )
    return StyleEncoder(kind)


NEUTRAL_NOUNS = (
    *("house", "tree", "car", "boat", "cat", "dog", "fish", "bird", "horse", "cup", "bottle", "chair", "table", "key"),
    *("star", "moon", "sun", "flower", "girl", "woman", "man", "child", "mountain", "river", "road", "bridge", "lamp"),
    *("book", "clock", "umbrella", "apple", "bread", "guitar", "ball", "butterfly", "crown", "dancer", "leaf"),
    *("mushroom", "snail"),
)


@dataclass
class ScoreSettings:
    """How samples are scored. Raises ValueError for a value that cannot be meant."""

    encoder: str = "sandbox/weights/encoder"  # open_clip folder, or "NAME@WEIGHTS_FILE" for a built-in architecture
    style_encoders: list[str] = field(default_factory=lambda: ["open_clip", "descriptor"])  # averaged, two or more
    patch_encoder: str = ""  # "timm:NAME@WEIGHTS_FILE" whose patches' self-similarity joins composition; empty: none
    lpips_weights: str = "sandbox/weights/lpips/lpips.safetensors"  # LPIPS.state_dict() or a torchvision trunk
    lpips_net: LpipsNet = LpipsNet.squeeze  # the trunk that file holds
    lpips_side: int = 64  # px; pictures are brought to this square before lpips compares them
    fetch: dict[str, str] = field(default_factory=dict)  # weights of the above -> the command that brings them here
    device: str = "cpu"  # torch device of the encoders: "cpu", "cuda", "cuda:1" or "auto"
    batch_size: int = 32  # pictures an encoder sees at once
    side: int = 64  # px; edge of the square of equal area at which texture is described; 512 for real FLUX samples
    references_at_least: int = 4  # held-out pictures needed; top-3 means are of 3 of the others
    tail_weight: float = 0.3  # weight of the weakest quarter of the prompts in the style objective
    tail_share: float = 0.25  # which share of the prompts the tail is
    gain_cap: float = 1.1  # a prompt's style gain counts up to here: beyond 1 lies copying
    style_range_at_least: float = 0.5  # SDs of the pool between base and references; below, style cannot be measured
    # Which ones a trial must meet. Not adherence: a style without colours loses every prompt's colours (see README).
    constraints: list[Constraint] = field(default_factory=lambda: [c for c in Constraint if c != Constraint.adherence])
    neutral_nouns: list[str] = field(default_factory=lambda: list(NEUTRAL_NOUNS))  # rivals of the training nouns
    leak_rate: float = 0.05  # share of samples that may show an unasked training noun; facts 9.1, proposal
    copy_rate: float = 0.02  # share of samples that may be copies; facts 9.1: one in 48 is already too many
    copy_distance: float = 0.4  # a copy is nearer than this share of references' usual distance; LPIPS
    failure_rate: float = 0.03  # failed samples above the base's own share, and one at least; facts 9.1, proposal
    adherence_loss: float = 0.5  # nats of log-retrieval of the own prompt that may be lost; proposal
    diversity_ratio: float = 0.8  # spread of the samples over the base's that must be left; facts 9.1
    line_quality: float = 0.5  # least mean quality of lines and contrast; proposal, see the ladder in tests
    confidence: float = 0.95  # level of the intervals
    bootstrap_samples: int = 2000  # resamples of the intervals
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        """Check every rule."""
        at_least = {"batch_size": 1, "side": 32, "lpips_side": 32, "references_at_least": 4, "bootstrap_samples": 100}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        shares = ["leak_rate", "copy_rate", "copy_distance", "failure_rate", "diversity_ratio", "line_quality"]
        for name in [*shares, "tail_weight"]:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}")
        for name in ["confidence", "tail_share"]:
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {getattr(self, name)}")
        for name in ["style_range_at_least", "adherence_loss", "gain_cap"]:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if not self.encoder:
            raise ValueError("`encoder` must name an open_clip folder or NAME@WEIGHTS_FILE, got an empty text")
        kinds = [style_encoder(name) for name in self.style_encoders]
        if len(kinds) < 2 or len(set(kinds)) < len(kinds):
            raise ValueError(
                f"`style_encoders` must name at least two encoders of different kinds, got {self.style_encoders}"
            )
        if self.patch_encoder and style_encoder(self.patch_encoder) is not StyleEncoder.timm:
            raise ValueError(f"`patch_encoder` must be timm:NAME@FILE or empty, got {self.patch_encoder!r}")
        wanted = {Constraint.memorisation, Constraint.diversity} & set(self.constraints)
        if wanted and not self.lpips_weights:
            raise ValueError(
                f"`lpips_weights` must name a file, got an empty text: the constraints {sorted(wanted)} are read with "
                "LPIPS; set it, or take them out of `constraints`"
            )

    def weights(self) -> dict[str, str]:
        """Return what the judges are loaded from: setting -> file or folder."""
        named = {"encoder": self.encoder, "patch_encoder": self.patch_encoder}
        named |= {f"style_encoders.{style_encoder(name)}": name for name in self.style_encoders}
        files = {key: name.partition("@")[2] for key, name in named.items()}
        found = files | {"encoder": files["encoder"] or self.encoder, "lpips_weights": self.lpips_weights}
        return {key: place for key, place in found.items() if place}


def settings_from(values: Mapping[str, Any]) -> ScoreSettings:
    """Return the settings that plain values name, as they stand in conf/score and in outcome.json.

    Raises:
        ValueError: for an unknown key, or a value that cannot be meant.
    """
    known = ScoreSettings.__dataclass_fields__
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown)}; there are {', '.join(known)}")
    found = dict(values)
    if "lpips_net" in found:
        found["lpips_net"] = LpipsNet(found["lpips_net"])
    if "constraints" in found:
        found["constraints"] = [Constraint(name) for name in found["constraints"]]
    return ScoreSettings(**found)
