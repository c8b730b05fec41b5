"""Where the seconds of a trial go."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds per part of the trial."""

    seconds: dict[str, float] = field(
        default_factory=lambda: {part: 0.0 for part in ("start_up", "encode", "train", "sample", "score")}
    )

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Adds what the block takes."""
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began
