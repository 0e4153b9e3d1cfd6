"""What a user can act on. The command line turns these into one sentence and exit code 2."""


class ConfigError(ValueError):
    """A setting that cannot be used as given; the message names the key or file."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another architecture."""


class DivergedError(RuntimeError):
    """A training of which nothing can come any more; the message says since when, and what to do."""


class Interrupted(BaseException):
    """A signal has stopped a run, which is saved; like KeyboardInterrupt, nothing to be caught as an error."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
