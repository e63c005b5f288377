"""What is installed on demand only, with the words for those who lack it."""

from types import ModuleType


class MissingExtraError(RuntimeError):
    """A file format needs a library that is not installed."""


def pyarrow_parquet() -> ModuleType:
    """`pyarrow.parquet`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from pyarrow import parquet  # noqa: PLC0415 - 60 MB that only Parquet needs
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'sie[parquet]', or use .jsonl") from error
    return parquet  # type: ignore[no-any-return]
