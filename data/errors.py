"""The one error of this package: bad input, said in a sentence that names the file or key and what to do."""

import re

__all__ = ["DataError", "printable", "worker_death"]


class DataError(ValueError):
    """A video, folder, table or data setting that cannot be used as given."""


def printable(text: str) -> str:
    """`text` as a terminal may show it: what would steer it, turn its direction or not be encoded becomes an escape.

    File names and labels are other people's. The line breaks of a list, which has its items indented, stay.
    """
    lines = re.split(r"\n(?=  )", text)
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def worker_death(error: Exception) -> DataError | None:
    """What to say where a worker process of a DataLoader died; None for other errors.

    torch raises a RuntimeError from a signal handler, wherever the main process happens to be; where that is just
    fetching what the worker has left, it is the connection that breaks. What a worker raised begins with "Caught".
    """
    first, *_ = str(error).splitlines() or [""]
    broken = isinstance(error, ConnectionError | EOFError) and not first.startswith("Caught")
    if not broken and not first.startswith("DataLoader worker (pid"):
        return None
    return DataError(
        f"a process that reads videos died ({first}): if memory ran out, use fewer data.workers or a smaller "
        "data.prefetch; `jepa check-data` finds files that crash a decoder"
    )
