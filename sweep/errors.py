"""What a person can put right: the door prints these without a traceback and ends with exit code 2."""

from collections.abc import Iterable


class InputError(ValueError):
    """Something asked for cannot be done; the message names it and says what to do."""


class Faults(InputError):
    """Several things at once, each told by itself; apart where one takes several lines."""

    def __init__(self, each: Iterable[str]) -> None:
        """Keep each once, in order."""
        self.each = list(dict.fromkeys(each))
        apart = "\n\n" if any("\n" in told for told in self.each) else "\n"
        super().__init__(apart.join(self.each))


class StudyMismatch(InputError):
    """The study on disk was made with another search space or other settings."""


class StudyBusy(InputError):
    """Another process is running this study."""


class StorageLost(InputError):
    """The study's database broke off in the middle of something."""


class ImpossibleTrial(ValueError):
    """A combination that a search came to breaks a rule; that trial fails, the others do not."""


class Stopped(Exception):
    """A trial ended at a rung, for the reason given; its job returns this in the place of values."""
