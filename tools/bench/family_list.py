"""All families of `families.py`, by name."""

from collections.abc import Mapping
from typing import Final

from family_finders import FINDERS
from family_images import IMAGE_FAMILIES
from family_kit import Family
from family_texts import TEXT_FAMILIES

FAMILIES: Final[Mapping[str, Family]] = {each.name: each for each in (*TEXT_FAMILIES, *FINDERS, *IMAGE_FAMILIES)}
