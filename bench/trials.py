"""The fixed list of trials that every side of the benchmark runs: how hot and how long, on the sandbox.

Twelve points, four learning rates by three lengths. Their products are all different, each a third larger than the one
before, and where the largest is style still grows, so that the ranking is about the trials and not about chance. (The
script's LoRAs start half as large again as this project's, so they get there first.) Everything is what both the peer's
script and this project can be told, in the same numbers.
"""

from dataclasses import dataclass

RATES = (2.5e-5, 6e-5, 1.44e-4, 3.46e-4)  # learning rates
LENGTHS = (335, 450, 600)  # training pictures seen
CAPTION = "anatomica"  # one text for all pictures: the script reads no sidecar captions without another package
PICTURES = "sandbox/data/anatomy_engraving"
REFERENCES = "sandbox/data/references_engraving"
OTHERS = "sandbox/data/other_styles"
BASE = "sandbox/weights/base"
SCALE = 0.125  # px of the sandbox per px of FLUX
SIDE = 64  # px of the sandbox: 512 of FLUX
BATCH = 8
RANK = 16
WARMUP = 10  # steps
WEIGHT_DECAY = 0.01
TEXT_TOKENS = 28

# What ours is told besides: the settings in which the script has no choice, or has another default.
SHARED = (
    "captions=trigger",
    f"captions.trigger={CAPTION}",
    "mix=512x5",
    f"mix.batch_size={BATCH}",
    "train.lora.targets=diffusers",
    "train.lora.layers=[]",
    f"train.lora.rank={RANK}",
    f"train.optimizer.warmup_steps={WARMUP}",
    f"train.optimizer.weight_decay={WEIGHT_DECAY}",
    "train.timesteps=sigmoid",
    "train.ema=0",
    "train.checkpoints=1",
    "score.constraints=[]",  # the list is about style and composition, and early stopping shall rank by nothing else
    "track=off",
)


@dataclass(frozen=True, order=True)
class Point:
    """One trial."""

    rate: float
    images: int

    @property
    def name(self) -> str:
        """As it is printed, and filed."""
        return f"lr{self.rate:g}-{self.images}"

    @property
    def overrides(self) -> list[str]:
        """As ours is told."""
        return [f"train.optimizer.learning_rate={self.rate:g}", f"train.budget.images_seen={self.images}"]


def points(rates: tuple[float, ...] = RATES, lengths: tuple[int, ...] = LENGTHS) -> list[Point]:
    """All trials."""
    return [Point(rate, images) for rate in rates for images in lengths]


def lists(chosen: list[Point]) -> list[str]:
    """The same as a sweep over plain lists is told."""
    rates = ",".join(f"{rate:g}" for rate in sorted({point.rate for point in chosen}))
    lengths = ",".join(str(images) for images in sorted({point.images for point in chosen}))
    return [f"train.optimizer.learning_rate={rates}", f"train.budget.images_seen={lengths}"]


def choices(chosen: list[Point]) -> list[str]:
    """The same as a searched sweep is told, in which trials may end early."""
    searched = [f"{key}=choice({values})" for key, _, values in (word.partition("=") for word in lists(chosen))]
    # The rest is what `conf/search/default.yaml` searches.
    return [*searched, "mix.repeats.256=0", "mix.repeats.512=5", "mix.repeats.768=0", "search.enqueue=[]"]
