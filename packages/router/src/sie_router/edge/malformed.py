"""What is no HTTP gets an answer in the one envelope as well."""

from sie_protocol.codec import MAX_HEAD_BYTES
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import VERSION
from sie_router.data.answers import refusal


def malformed() -> bytes:
    """The whole response, after which the connection is closed: nobody knows where the next request would begin."""
    what = f"its head is malformed or longer than {MAX_HEAD_BYTES} bytes"
    message = f"this is no HTTP/1.1 request, or {what}; the connection is closed"
    answer = refusal(Problem(ErrorCode.INVALID_INPUT, message))
    headers = [*answer.headers, (SERVER_VERSION.lower().encode(), VERSION.encode()), (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (lines, answer.body)
