"""How long a client would rather wait than come back, by `Prefer: wait=30` (RFC 7240). `X-SIE-Wait` beats it."""

import re
from typing import Final

from sie_protocol.headers import PREFER
from sie_router.data.incoming import RawHeaders

_PREFER: Final = PREFER.lower().encode()
_PREFERENCE: Final = re.compile(rb'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def preferred_s(headers: RawHeaders, otherwise: int = 0) -> int:
    """Whole seconds; `otherwise` when the client said nothing that can be read, which the RFC wants to be ignored."""
    values = (value for name, value in headers if name == _PREFER)
    wishes = (_PREFERENCE.fullmatch(each) for value in values for each in value.split(b","))
    return next((int(wish[1]) for wish in wishes if wish is not None), otherwise)
