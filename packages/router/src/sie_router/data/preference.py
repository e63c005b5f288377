"""How long a client would rather wait than come back. `X-SIE-Wait` beats what is read here."""

import re
from typing import Final

from sie_protocol.headers import PREFER
from sie_router.data.incoming import WHOLE_SECONDS, RawHeaders

_PREFER: Final = PREFER.lower().encode()
# By what OpenAI's and Cohere's packages are known, and how some tell how many seconds they allow a request; else 300.
_ALLOWED: Final = frozenset({b"x-stainless-read-timeout", b"x-stainless-timeout"})
_PACKAGES: Final = frozenset({b"x-stainless-lang", b"x-fern-language"})
COMPAT_WAIT_S: Final = 50  # proxies in between allow 60 s
_TO_ANSWER_S: Final = 5  # of what a client allows, so much is left for the answer
_PREFERENCE: Final = re.compile(rb'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def preferred_s(headers: RawHeaders) -> int | None:
    """Whole seconds, by `Prefer: wait=30`; None of nothing that can be read, which RFC 7240 wants to be ignored."""
    values = (value for name, value in headers if name == _PREFER)
    wishes = (_PREFERENCE.fullmatch(each) for value in values for each in value.split(b","))
    return next((int(wish[1]) for wish in wishes if wish is not None), None)


def unasked_s(headers: RawHeaders) -> int:
    """Whole seconds that a client of OpenAI's or Cohere's packages waits unasked, 0 of any other.

    Left to themselves these give up after two tries, and a worker takes longer to come than two delays.
    """
    if not any(name in _PACKAGES for name, _ in headers):
        return 0
    allowed = next((value.partition(b".")[0] for name, value in headers if name in _ALLOWED), None)
    if allowed is None:
        return COMPAT_WAIT_S
    seconds = int(allowed) if WHOLE_SECONDS.fullmatch(allowed) else 0
    return max(0, min(COMPAT_WAIT_S, seconds - _TO_ANSWER_S))
