"""What a failed load is remembered as, and what callers hear of it."""

from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass, Failure


def failure_of(error: Exception, attempts: int, now: float, timeout_s: float) -> Failure:
    """The failure of a load that may take so long. Only texts written for callers are kept; the log has the rest."""
    return Failure(class_of(error), _message_of(error, timeout_s), attempts, now)


def load_failed(name: str, failure: Failure) -> Problem:
    """The refusal of what could not be loaded."""
    return Problem(
        ErrorCode.MODEL_LOAD_FAILED,
        f"model '{name}' cannot be loaded: {failure.message}",
        details={
            "model": name,
            "error_class": str(failure.error_class),
            "attempts": failure.attempts,
            "permanent": failure.permanent,
        },
    )


def class_of(error: Exception) -> ErrorClass:
    """Whether another try makes sense, told by the error's type."""
    if isinstance(error, LoadError):
        return error.error_class
    for kind, error_class in _CLASSES:
        if isinstance(error, kind):
            return error_class
    return ErrorClass.UNKNOWN


def _message_of(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it took longer than {timeout_s:.0f} s"
    if isinstance(error, OSError) and error.filename:
        return f"'{error.filename}' cannot be read: {error.strerror}"
    return str(error) if isinstance(error, LoadError) else "an unexpected error; the worker's log says which"


_CLASSES: tuple[tuple[type[Exception], ErrorClass], ...] = (
    (ImportError, ErrorClass.DEPENDENCY),
    (MemoryError, ErrorClass.OOM),
    (TimeoutError, ErrorClass.TIMEOUT),
    # A file that is not there or not for us stays so; any other trouble of a disk may be over in a moment.
    (FileNotFoundError, ErrorClass.UNKNOWN),
    (PermissionError, ErrorClass.UNKNOWN),
    (OSError, ErrorClass.NETWORK),
)
