"""The one error of this package: bad input, said in a sentence that names the file or key and what to do."""

import re

__all__ = ["DataError", "printable"]


class DataError(ValueError):
    """A video, folder, table or data setting that cannot be used as given."""


def printable(text: str) -> str:
    """`text` as a terminal may show it: what would steer it, turn its direction or not be encoded becomes an escape.

    File names and labels are other people's. The line breaks of a list, which has its items indented, stay.
    """
    lines = re.split(r"\n(?=  )", text)
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)
