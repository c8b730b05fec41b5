"""Numbers as the views write them."""

from collections.abc import Sequence


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
