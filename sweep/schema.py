"""The rooms' settings side by side, as Hydra's schema: what a configuration may contain, and of which type.

Registered in Hydra's ConfigStore by `register()`, which `conf/config.yaml` names first in its defaults.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from metrics.settings import ScoreSettings
from sweep.settings import EvalSettings, SearchSettings, StudySettings, TrackSettings
from trainer.captioner_settings import CaptionerSettings, TaggerSettings
from trainer.settings import BaseSettings, CaptionSettings, DataSettings, MixSettings, SampleSettings, TrainSettings


@dataclass
class MixNode(MixSettings):
    """`MixSettings` as OmegaConf 2.3 can take it: a key written on the command line (`mix.repeats.512=3`) is text."""

    repeats: dict[str, int] = field(default_factory=dict)  # type: ignore[assignment]
    batch_sizes: dict[str, int] = field(default_factory=dict)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.repeats = _by_side("mix.repeats", self.repeats)  # type: ignore[assignment]
        self.batch_sizes = _by_side("mix.batch_sizes", self.batch_sizes)  # type: ignore[assignment]
        super().__post_init__()


@dataclass
class DataNode(DataSettings):
    """`DataSettings` without its defaults, so that `conf/data/folder.yaml` can leave them to be given."""

    path: str = MISSING
    references: str = MISSING


@dataclass
class Config:
    """Everything a trial is made from."""

    captions: CaptionSettings = field(default_factory=CaptionSettings)
    captioner: CaptionerSettings = field(default_factory=CaptionerSettings)
    tagger: TaggerSettings = field(default_factory=TaggerSettings)
    mix: MixNode = MISSING  # from conf/mix
    base: BaseSettings = field(default_factory=BaseSettings)
    data: DataNode = MISSING  # from conf/data
    train: TrainSettings = field(default_factory=TrainSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)
    eval: EvalSettings = MISSING  # from conf/eval
    score: ScoreSettings = field(default_factory=ScoreSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    study: StudySettings = field(default_factory=StudySettings)
    track: TrackSettings = field(default_factory=TrackSettings)


def register() -> None:
    """Makes the schema known to Hydra under the name `schema`, and the resolvers that name folders."""
    OmegaConf.register_new_resolver("stem", _stem, replace=True)
    OmegaConf.register_new_resolver("sides", _sides, replace=True)
    OmegaConf.register_new_resolver("digest", _digest, replace=True)
    ConfigStore.instance().store(name="schema", node=Config)


def _digest(value: object) -> str:
    """Eight letters that stand for a value: the same overrides find the same folder again."""
    return hashlib.blake2b(str(value).encode(), digest_size=4).hexdigest()


def _sides(*, _root_: DictConfig) -> str:
    """The sides in use and their repeats, as conf/mix names its files: 512x3_768x2."""
    repeats = OmegaConf.select(_root_, "mix.repeats") or {}
    return "_".join(f"{side}x{times}" for side, times in repeats.items() if times != 0)


def _stem(key: str, *, _root_: DictConfig) -> str:
    """The last part of a path in the configuration; "study" while it is not given, which is told elsewhere."""
    value = OmegaConf.select(_root_, key, throw_on_missing=False)
    return Path(str(value)).name if value else "study"


def _by_side(name: str, values: dict[str, int]) -> dict[int, int]:
    """Turns the keys into sides in px.

    Raises:
        ValueError: if a key is not a whole number.
    """
    wrong = [key for key in values if not str(key).isdecimal()]
    if wrong:
        raise ValueError(f"`{name}` has sides in px as keys, such as {name}.512, got {', '.join(wrong)}")
    return {int(side): value for side, value in values.items()}
