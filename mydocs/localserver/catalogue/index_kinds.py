"""Complete the indexes that are only catalogue entries: text, geo, hashed, wildcard. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.values import is_number, to_int, type_name

Spec = dict[str, Any]
TEXT_VERSION, SPHERE_VERSION = 3, 3  # the versions of a 7.0 server
MAX_WEIGHT = 99_999
FLAT_OPTIONS = ("bits", "min", "max")


def is_wildcard(field: str) -> bool:
    return field == "$**" or field.endswith(".$**")


def plugin(key: Mapping[str, Any]) -> str | None:
    """Return the kind that a key names, or ``None`` for a plain key."""
    return next((value for value in key.values() if isinstance(value, str)), None)


def with_kind(spec: Spec, given: Mapping[str, Any]) -> Spec:
    """
    Return a specification with the options of its kind, as they are listed.

    :raises CommandError: for options that a server refuses
    """
    kinds = {value for value in spec["key"].values() if isinstance(value, str)}
    if len(kinds) > 1:
        raise CommandError(67, f"Can't use more than one index plugin for a single index: {sorted(kinds)}")
    kind = kinds.pop() if kinds else None
    for option in OPTIONS:
        if option in given and option not in OPTIONS_OF.get(kind, ()):
            raise CommandError(67, f"The option '{option}' does not belong to an index on {dict(spec['key'])}")
    return spec if kind is None else KINDS[kind](spec, given)


def _no(spec: Spec, kind: str, *options: str) -> None:
    for option in options:
        if spec.get(option):
            raise CommandError(67, f"Index type '{kind}' does not support the {option} option")


def _text(spec: Spec, given: Mapping[str, Any]) -> Spec:
    _no(spec, "text", "unique", "collation")
    if "expireAfterSeconds" in given:
        raise CommandError(67, "Index type 'text' does not support the expireAfterSeconds option")
    key = spec["key"]
    weights = given.get("weights", {})
    if isinstance(weights, str):
        weights = {weights: 1}
    if not isinstance(weights, Mapping):
        raise CommandError(67, f"text index option 'weights' must be an object, not {type_name(weights)}")
    # In the listing the fields appear only in the weights.
    names = [name for name, value in key.items() if value == "text" and name != "_fts"]
    if "_fts" in key and not weights:
        raise CommandError(67, "text index with the key _fts requires the 'weights' option")
    places = [place for place, value in enumerate(key.values()) if value == "text"]
    if places != list(range(places[0], places[-1] + 1)):
        raise CommandError(67, "'text' fields in index must all be adjacent")
    all_weights = {**dict.fromkeys(names, 1), **weights}
    for name, weight in all_weights.items():
        whole = to_int(weight)
        if whole is None or not 1 <= whole <= MAX_WEIGHT:
            raise CommandError(
                67, f"text index weight must be in the exclusive interval (0,100000) but found: {weight}"
            )
        all_weights[name] = whole
    listed: dict[str, Any] = {}
    for name, value in key.items():
        if value == "text":
            listed |= {"_fts": "text", "_ftsx": 1}
        elif name != "_ftsx":
            listed[name] = value
    languages = {
        "default_language": given.get("default_language", "english"),
        "language_override": given.get("language_override", "language"),
    }
    if not all(isinstance(value, str) for value in languages.values()):
        raise CommandError(67, "the languages of a text index must be strings")
    version = to_int(given.get("textIndexVersion", TEXT_VERSION))
    if version not in (1, 2, 3):
        raise CommandError(67, f"bad textIndexVersion: {given['textIndexVersion']}")
    return {
        **spec,
        "key": listed,
        "weights": dict(sorted(all_weights.items())),
        **languages,
        "textIndexVersion": version,
    }


def _hashed(spec: Spec, given: Mapping[str, Any]) -> Spec:
    del given
    if spec.get("unique"):
        raise CommandError(16764, "Currently hashed indexes cannot guarantee uniqueness. Use a regular index.")
    if list(spec["key"].values()).count("hashed") > 1:
        raise CommandError(31303, "A maximum of one index field is allowed to be hashed")
    if any(is_wildcard(name) for name in spec["key"]):
        raise CommandError(67, "Index type 'hashed' does not support wildcards")
    return spec


def _sphere(spec: Spec, given: Mapping[str, Any]) -> Spec:
    if spec.get("unique"):
        raise NotKnown("unique 2dsphere indexes")
    version = to_int(given.get("2dsphereIndexVersion", SPHERE_VERSION))
    if version not in (1, 2, 3):
        raise CommandError(67, f"unsupported geo index version {{ 2dsphereIndexVersion: {version} }}")
    return {**spec, "2dsphereIndexVersion": version}


def _flat(spec: Spec, given: Mapping[str, Any]) -> Spec:
    if spec.get("unique"):
        raise NotKnown("unique 2d indexes")
    options = {name: given[name] for name in FLAT_OPTIONS if name in given}
    for name, value in options.items():
        if not is_number(value):
            raise CommandError(14, f"The field '{name}' must be a number, but got {type_name(value)}")
    if not 1 <= (to_int(options.get("bits", 26)) or 0) <= 32:
        raise CommandError(2, "bits for hash must be > 0 and <= 32")
    return {**spec, **options}


KINDS: Mapping[str, Callable[[Spec, Mapping[str, Any]], Spec]] = {
    "text": _text,
    "hashed": _hashed,
    "2dsphere": _sphere,
    "2d": _flat,
}
OPTIONS_OF: Mapping[str | None, tuple[str, ...]] = {
    "text": ("weights", "default_language", "language_override", "textIndexVersion"),
    "2dsphere": ("2dsphereIndexVersion",),
    "2d": FLAT_OPTIONS,
}
OPTIONS = tuple(option for options in OPTIONS_OF.values() for option in options)
