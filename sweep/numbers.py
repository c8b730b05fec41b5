"""Numbers as the views write them."""

from collections.abc import Sequence

TRAININGS_AT_LEAST = 3  # of one recipe; fewer do not tell how far trainings differ
MOST = {"composition": 1.0}  # where a scale ends, and an interval with it


def plural(count: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a real minus among them; no sign for what rounds to 0."""
    return number(value, digits) if round(value, digits) == 0 else f"{value:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus, and none before 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval_in_words(bounds: Sequence[float]) -> str:
    """0.66 to 0.93."""
    return f"{number(bounds[0])} to {number(bounds[1])}"


def final_interval(name: str, bounds: Sequence[float], trainings: int) -> str:
    """The interval of a finalist's objective over its trainings, or that these are too few for one."""
    if trainings < TRAININGS_AT_LEAST:
        return "too few trainings"
    return interval_in_words((bounds[0], min(bounds[1], MOST.get(name, bounds[1]))))
