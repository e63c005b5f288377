"""What a request asks for: `pool/profile` and `bundle:/org/model`, parsed in one place."""

import msgspec

from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem

BUNDLE_SEPARATOR = ":/"


class Target(msgspec.Struct, frozen=True):
    """Where a request wants to run. None means: the caller did not say."""

    pool: str | None = None
    profile: str | None = None


class ModelRef(msgspec.Struct, frozen=True):
    """A model as the caller spelled it, with the bundle it insists on, if any."""

    name: str
    bundle: str | None = None

    def __str__(self) -> str:
        return self.name if self.bundle is None else f"{self.bundle}{BUNDLE_SEPARATOR}{self.name}"


def parse_target(profile: str | None, pool: str | None = None) -> Target:
    """Read `X-SIE-MACHINE-PROFILE` (or the SDK's `gpu=`) and `X-SIE-Pool`.

    The first slash of `profile` splits pool from profile, and that pool beats the pool header. Empty parts are absent.
    """
    wanted = (profile or "").strip()
    prefix, slash, rest = wanted.partition("/")
    if slash:
        return Target(prefix.strip() or (pool or "").strip() or None, rest.strip() or None)
    return Target((pool or "").strip() or None, wanted or None)


def parse_model(path: str) -> ModelRef:
    """Read `[bundle:/]model`; the bundle is lower-cased, the model keeps its spelling.

    Raises:
        Problem: INVALID_INPUT when the model or the bundle is empty.
    """
    bundle, separator, name = path.partition(BUNDLE_SEPARATOR)
    if not separator:
        bundle, name = "", path
    if not name or (separator and not bundle):
        raise Problem(
            ErrorCode.INVALID_INPUT,
            f"'{path[:MAX_SHOWN]}' names no model; expected 'model' or 'bundle:/model', for example 'BAAI/bge-m3'",
        )
    return ModelRef(name, bundle.lower() or None)
