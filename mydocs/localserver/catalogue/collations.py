"""Check and complete collations of indexes, and fold values by them if that can be done exactly. Pure."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.text import shown
from mydocs.localserver.query.values import to_int

FIELDS = fields(
    "locale:string! caseLevel:bool caseFirst:string strength:number numericOrdering:bool alternate:string "
    "maxVariable:string normalization:bool backwards:bool version:string"
)
DEFAULTS: Mapping[str, Any] = {
    "caseLevel": False,
    "caseFirst": "off",
    "strength": 3,
    "numericOrdering": False,
    "alternate": "non-ignorable",
    "maxVariable": "punct",
    "normalization": False,
    "backwards": False,
    "version": "57.1",  # of ICU; no server has had another
}
# Where a locale of ICU 57 differs from the root locale.
LOCAL_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "da": {"caseFirst": "upper"},
    "mt": {"caseFirst": "upper"},
    "fr_CA": {"backwards": True},
    "th": {"alternate": "shifted"},
}
CHOICES = {
    "caseFirst": ("off", "upper", "lower"),
    "alternate": ("non-ignorable", "shifted"),
    "maxVariable": ("punct", "space"),
}
# The languages of "Collation Locales" in MongoDB's manual.
LANGUAGES = (
    "af sq am ar hy as az bn be bs bg my ca chr zh hr cs da nl dz en eo et ee fo fil fi fr gl ka de el gu ha haw he hi "
    "hu is ig smn id ga it ja kl kn kk km kok ko ky lkt lo lv ln lt dsb lb mk ms ml mt mr mn ne se nb nn or om ps fa "
    "pl pt pa ro ru sr si sk sl es sw sv ta te th bo to tr uk hsb ur ug vi wae cy yi yo zu"
)
# Locales that sort the Latin alphabet as the root collation does, in which a letter with a mark is a letter and a mark.
UNTAILORED = frozenset({"en", "de", "fr", "it", "nl", "pt"})


def normal_collation(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Return a collation as it is listed, ``None`` for the simple one.

    :raises CommandError: for a collation that a server refuses
    """
    options = checked("collation", given, FIELDS)
    locale = options["locale"]
    if locale == "simple":
        if len(options) > 1:
            raise CommandError(2, f"If locale=simple, cannot specify other fields in: {shown(given)}")
        return None
    if (
        not re.fullmatch(r"([a-z]{2,3})(_[A-Za-z]+)*(@collation=\w+)?", locale)
        or _language(locale) not in LANGUAGES.split()
    ):
        raise CommandError(2, f"Field 'locale' is invalid in: {shown(given)}")
    for name, known in CHOICES.items():
        if options.get(name, known[0]) not in known:
            raise CommandError(
                2, f"Enumeration value '{options[name]}' for field 'collation.{name}' is not a valid value."
            )
    strength = to_int(options.get("strength", 3))
    if strength is None or not 1 <= strength <= 5:
        raise CommandError(51024, f"BSON field 'collation.strength' must be from 1 to 5, not {options['strength']}")
    for name, value in DEFAULTS.items():
        if isinstance(value, bool) and name in options and not isinstance(options[name], bool):
            raise CommandError(14, f"BSON field 'collation.{name}' has to be a boolean")
    return {
        "locale": locale,
        **DEFAULTS,
        **LOCAL_DEFAULTS.get(locale, {}),
        **options,
        "strength": strength,
        "version": DEFAULTS["version"],
    }


def _language(locale: str) -> str:
    return re.split("[_@]", locale)[0]


def folding(collation: Mapping[str, Any]) -> Callable[[Any], Any]:
    """
    Return a function that makes all values equal which are equal under a collation.

    :raises NotKnown: for a collation that needs more than Unicode's own tables
    """
    plain = (
        collation["alternate"] == "non-ignorable" and not collation["caseLevel"] and not collation["numericOrdering"]
    )
    if collation["strength"] > 2 or not plain or "@" in collation["locale"]:
        raise NotKnown("unique indexes with a collation other than one of strength 1 or 2 without further options")
    if _language(collation["locale"]) not in UNTAILORED:
        raise NotKnown(f"unique indexes with a collation of the locale '{collation['locale']}'")
    marks_count = collation["strength"] == 2

    def fold(value: Any) -> Any:
        if isinstance(value, str):
            return _folded(value, marks_count=marks_count)
        if isinstance(value, Mapping):
            return {name: fold(part) for name, part in value.items()}
        return [fold(part) for part in value] if isinstance(value, list) else value

    return fold


def _folded(text: str, *, marks_count: bool) -> str:
    parts = unicodedata.normalize("NFD", text)
    for letter in parts:
        if not (letter.isascii() and letter.isprintable()) and not "\u0300" <= letter <= "\u036f":
            raise NotKnown(f"a unique index with a collation on a text with the letter {letter!r}")
    return (parts if marks_count else "".join(filter(str.isascii, parts))).lower()
