"""How long a client would rather wait than come back: `Prefer: wait=30` (RFC 7240), or `X-SIE-Wait: 30`."""

import re
from typing import Final

from sie_protocol.headers import PREFER, WAIT
from sie_router.data.incoming import RawHeaders

_PREFER: Final = PREFER.lower().encode()
_WAIT: Final = WAIT.lower().encode()
_PREFERENCE: Final = re.compile(rb'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)
_SECONDS: Final = re.compile(rb"\s*(\d{1,9})\s*")


def wait_s(headers: RawHeaders, most_s: int) -> int:
    """Whole seconds, at most `most_s`; 0 when the client said nothing that can be read, as the RFC has it."""
    for name, value in headers:
        if name == _WAIT:
            found = _SECONDS.fullmatch(value)
        elif name == _PREFER:
            found = next(filter(None, map(_PREFERENCE.fullmatch, value.split(b","))), None)
        else:
            continue
        if found is not None:
            return min(int(found[1]), most_s)
    return 0
