"""Seeds for every random choice, derived from what the choice is about.

Nothing here draws from a global generator: two trainings that make the same choice (same seed, same step) make it
alike, whatever else they did before.
"""

from hashlib import blake2b


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on all parts and their order, equal on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
