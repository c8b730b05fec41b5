"""What can be set about the models that make captions and tags. Nothing here imports a model."""

from dataclasses import dataclass
from enum import StrEnum


class CaptionerKind(StrEnum):
    """Who makes captions."""

    rules = "rules"  # nobody: sidecars are read, words are taken out by rule
    endpoint = "endpoint"  # any server that speaks OpenAI's protocol
    local = "local"  # a transformers model on this machine


@dataclass
class CaptionerSettings:
    kind: CaptionerKind = CaptionerKind.rules  # who makes captions
    model: str = ""  # name at the endpoint; or a local model's folder, or hub id whose weights are on this machine
    url: str = ""  # the endpoint's address up to and with /v1
    key_variable: str = ""  # name of the environment variable that holds the API key, never the key; empty: none
    rewrites: bool = True  # whether `edited` and `subject_only` are asked of the model; false: they go by rules
    task: str = ""  # what a model without chat is told instead of the prompts, such as <MORE_DETAILED_CAPTION>
    temperature: float = 0.0  # 0: the likeliest words; a wrong answer is asked again a little warmer
    max_tokens: int = 300  # of an answer; a longer one counts as runaway
    timeout_s: float = 120.0  # seconds for one answer
    attempts: int = 3  # times a picture is asked about before it is reported
    picture_px: int = 1024  # longer edge of the picture that is sent
    device: str = "auto"  # of a local model: cpu, cuda, cuda:1, …; auto: cuda if there is one

    def __post_init__(self) -> None:
        needed = {CaptionerKind.rules: (), CaptionerKind.endpoint: ("model", "url"), CaptionerKind.local: ("model",)}
        empty = [f"captioner.{name}" for name in needed[self.kind] if not getattr(self, name).strip()]
        if empty:
            raise ValueError(
                f"`{'` and `'.join(empty)}` must be given with captioner.kind={self.kind}: add {empty[0]}=…"
            )
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "`captioner.url` must not hold a password: put the key into the environment, its variable's name into"
                " captioner.key_variable"
            )
        if self.task and self.rewrites and self.kind == CaptionerKind.local:
            raise ValueError(
                f"`captioner.task={self.task}` is all this model is told, so it cannot rewrite captions: set"
                " captioner.rewrites=false"
            )
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"`captioner.url` must begin with http:// or https://, got {self.url}")
        for name in ("max_tokens", "attempts", "picture_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"`captioner.{name}` must be at least 1, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ValueError(f"`captioner.timeout_s` must be above 0, got {self.timeout_s}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"`captioner.temperature` must lie between 0 and 2, got {self.temperature}")


@dataclass
class TaggerSettings:
    model: str = ""  # folder, or hub id on this machine, of a WD14-type tagger; empty: the sidecar's NAME.tags
    threshold: float = 0.35  # least probability of a general tag
    character_threshold: float = 0.85  # least probability of a character tag
    characters: bool = False  # whether characters are named; a style LoRA seldom wants them

    def __post_init__(self) -> None:
        for name in ("threshold", "character_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`tagger.{name}` must lie between 0 and 1, got {getattr(self, name)}")
