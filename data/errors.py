"""The one error of this package: bad input, said in a sentence that names the file or key and what to do."""


class DataError(ValueError):
    """A video, folder, table or data setting that cannot be used as given."""
