"""Check index specifications and compare them with the existing indexes, as `createIndexes` does. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bson.regex import Regex

from mydocs.localserver.catalogue.collations import folding, normal_collation
from mydocs.localserver.catalogue.collection import NO_TIME, Index
from mydocs.localserver.catalogue.index_kinds import KINDS, OPTIONS, is_wildcard, plugin, with_kind
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.text import shown
from mydocs.localserver.query.values import compare, is_number, type_name

Spec = dict[str, Any]

MAX_INDEXES = 64  # of one collection; the limit of every MongoDB server
MAX_FIELDS = 32  # of a compound index; Ordering::kMaxCompoundIndexKeys
MAX_TTL = 2**31 - 1  # seconds

# Options that do not change which documents an index accepts are only stored and listed.
FLAGS = ("unique", "sparse", "hidden", "background", "prepareUnique")
KNOWN = frozenset({
    *FLAGS, *OPTIONS, "v", "key", "name", "ns", "expireAfterSeconds", "partialFilterExpression", "collation",
    "wildcardProjection",
})  # fmt: skip
NOT_DONE = frozenset({"storageEngine", "bucketSize", "clustered", "columnstoreProjection"})
GONE = frozenset({"geoHaystack", "columnstore"})
# The options that distinguish two indexes on one key. With the same ones they are equivalent, and so in conflict.
SIGNATURE = ("key", "unique", "sparse", "partialFilterExpression", "collation", "wildcardProjection")


def normal(given: Any) -> Spec:
    """
    Return a specification as it will be listed.

    :raises CommandError: if a server would refuse it
    """
    if not isinstance(given, Mapping):
        raise CommandError(14, f"an index specification must be an object, but is {type_name(given)}")
    if "key" not in given:
        raise CommandError(9, "The 'key' field is a required property of an index specification")
    key = given["key"]
    if not isinstance(key, Mapping):
        raise CommandError(14, f"The field 'key' must be an object, but got {type_name(key)}")
    for option in given:
        if option == "dropDups":  # silently ignored since MongoDB 3.0
            continue
        if option in NOT_DONE:
            raise NotKnown(f"the index option '{option}'")
        if option not in KNOWN:
            raise CommandError(
                197, f"The field '{option}' is not valid for an index specification. Specification: {shown(given)}"
            )
    _check_key(key)
    if "name" not in given:
        raise CommandError(9, "The 'name' field is a required property of an index specification")
    name = given["name"]
    if not isinstance(name, str):
        raise CommandError(14, f"The field 'name' must be a string, but got {type_name(name)}")
    if not name or name == "*":
        raise CommandError(
            2 if name else 67, f"The index name '{name}' is not valid." if name else "index name is empty"
        )
    if dict(key) == {"_id": 1}:
        return _identity(given)
    spec: Spec = {"v": 2, "key": dict(key), "name": name}
    if given.get("v", 2) not in (1, 2):
        raise CommandError(
            67, f"Invalid index specification {shown(given)}; cannot create an index with v={given['v']}"
        )
    for flag in FLAGS:
        if flag in given:
            if not isinstance(given[flag], bool) and not is_number(given[flag]):
                raise CommandError(
                    14, f"The field '{flag}' has value {flag}: {shown(given[flag])}, which is not convertible to bool"
                )
            if given[flag] or flag == "background":
                spec[flag] = bool(given[flag])
    _check_combinations(spec, given)
    for option in ("expireAfterSeconds", "partialFilterExpression", "wildcardProjection"):
        if option in given:
            spec[option] = given[option]
    if "collation" in given:
        if not isinstance(given["collation"], Mapping):
            raise CommandError(14, "The field 'collation' must be an object")
        collation = normal_collation(given["collation"])
        if collation is not None:
            spec["collation"] = collation
            if spec.get("unique") or spec.get("prepareUnique"):
                folding(collation)
    return with_kind(spec, given)


def is_new(spec: Spec, existing: Iterable[Index], fresh: Iterable[Spec]) -> bool:
    """
    Return whether an index must be built.

    :param existing: the indexes of the collection
    :param fresh: those that the same command creates before this one
    :raises CommandError: code 85 or 86 on a conflict, 96 for one index twice in one command
    """
    pairs = [(dict(index.spec), False) for index in existing] + [(other, True) for other in fresh]
    for other, in_batch in pairs:
        if spec["name"] != other["name"]:
            continue
        if not _same_signature(spec, other):
            raise CommandError(
                86,
                "An existing index has the same name as the requested index. When index names are not specified, they "
                "are auto generated and can cause conflicts. Please refer to our documentation. "
                f"Requested index: {shown(spec)}, existing index: {shown(other)}",
            )
        if not _same_options(spec, other):
            raise CommandError(
                85,
                "An equivalent index already exists with the same name but different options. "
                f"Requested index: {shown(spec)}, existing index: {shown(other)}",
            )
        if in_batch:
            raise CommandError(96, "Cannot build two identical indexes. Try again without duplicate indexes.")
        return False
    if plugin(spec["key"]) == "text" and any(plugin(other["key"]) == "text" for other, _ in pairs):
        raise CommandError(67, "only one text index per collection allowed")
    for other, _ in pairs:
        if _same_signature(spec, other):
            if _same_options(spec, other):
                raise CommandError(85, f"Index already exists with a different name: {other['name']}")
            raise CommandError(
                85,
                "An equivalent index already exists with a different name and options. "
                f"Requested index: {shown(spec)}, existing index: {shown(other)}",
            )
    return True


def _check_key(key: Mapping[str, Any]) -> None:
    if not key:
        raise CommandError(67, "Index keys cannot be empty.")
    if len(key) > MAX_FIELDS:
        raise CommandError(67, f"a compound index has at most {MAX_FIELDS} fields, not {len(key)}")
    for field, value in key.items():
        if isinstance(value, str):
            if value in GONE:
                raise NotKnown(f"{value} indexes")
            if value not in KINDS:
                raise CommandError(67, f"Unknown index plugin '{value}'")
            continue
        if isinstance(value, bool) or not is_number(value):
            raise CommandError(
                67,
                f"Values in v:2 index key pattern cannot be of type {type_name(value)}. "
                "Only numbers > 0, numbers < 0, and strings are allowed.",
            )
        if float(str(value)) == 0 or math.isnan(float(str(value))):
            raise CommandError(67, "Values in the index key pattern cannot be 0.")
        if not field or "" in field.split("."):
            raise CommandError(67, "Index keys cannot be an empty field.")
        if any(part.startswith("$") and part not in ("$**", "$id", "$ref", "$db") for part in field.split(".")):
            raise CommandError(67, f"Index key contains an illegal field name: field name starts with '$'. {field}")
    if sum(map(is_wildcard, key)) > 1:
        raise CommandError(67, "wildcard indexes do not allow more than one wildcard field")


def _check_combinations(spec: Spec, given: Mapping[str, Any]) -> None:
    key = spec["key"]
    wildcard = any(map(is_wildcard, key)) and plugin(key) is None
    if "wildcardProjection" in given:
        projection = given["wildcardProjection"]
        if not isinstance(projection, Mapping):
            raise CommandError(
                14, f"The field 'wildcardProjection' must be a non-empty object, not {type_name(projection)}"
            )
        if "$**" not in key:
            raise CommandError(2, "The field 'wildcardProjection' is only allowed when 'key' has the field $**")
        if not projection:
            raise CommandError(9, "The 'wildcardProjection' field can't be an empty object")
    if wildcard and (spec.get("unique") or "expireAfterSeconds" in given):
        option = "unique" if spec.get("unique") else "expireAfterSeconds"
        raise CommandError(67, f"Index type 'wildcard' does not support the {option} option")
    if "expireAfterSeconds" in given:
        seconds = given["expireAfterSeconds"]
        if isinstance(seconds, bool) or not is_number(seconds):
            raise CommandError(
                67,
                f"TTL index 'expireAfterSeconds' option must be numeric, but received a type of '{type_name(seconds)}'",
            )
        if not 0 <= float(str(seconds)) <= MAX_TTL:
            raise CommandError(
                67, f"TTL index 'expireAfterSeconds' option must be within an acceptable range, try a different number "
                f"than {shown(seconds)}"
            )  # fmt: skip
        if len(key) > 1:
            raise CommandError(67, "TTL indexes are single-field indexes, compound indexes do not support TTL")
        if "_id" in key:
            raise CommandError(67, "The field 'expireAfterSeconds' is not valid for an _id index specification")
    if "partialFilterExpression" in given:
        condition = given["partialFilterExpression"]
        if not isinstance(condition, Mapping):
            raise CommandError(14, f"The field 'partialFilterExpression' must be an object, got {type_name(condition)}")
        if spec.get("sparse"):
            raise CommandError(67, 'cannot mix "partialFilterExpression" and "sparse" options')
        compile_filter(dict(condition), now=NO_TIME)
        _check_partial(condition)


def _check_partial(condition: Mapping[str, Any]) -> None:
    for name, value in condition.items():
        if name in ("$and", "$or"):
            for part in value:
                _check_partial(part)
        elif name.startswith("$"):
            raise CommandError(67, f"Expression not supported in partial index: {name}")
        elif isinstance(value, Regex):
            raise CommandError(67, f"Expression not supported in partial index: {name} $regex")
        elif isinstance(value, Mapping):
            for operator, operand in value.items():
                wrong = operator.startswith("$") and operator not in PARTIAL
                if wrong or (operator == "$exists" and not operand):
                    raise CommandError(67, f"Expression not supported in partial index: {operator}")


PARTIAL = frozenset({"$eq", "$gt", "$gte", "$lt", "$lte", "$type", "$exists", "$in"})


def _identity(given: Mapping[str, Any]) -> Spec:
    for option in given:
        if option not in ("v", "key", "name", "ns", "collation"):
            if option == "hidden" and given[option]:
                raise CommandError(2, "can't hide _id index")
            raise CommandError(
                197, f"The field '{option}' is not valid for an _id index specification. Specification: {shown(given)}"
            )
    # This index always has its own name, whatever name is given.
    return {"v": 2, "key": {"_id": 1}, "name": "_id_"}


def _same_signature(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return all(_same(left.get(part), right.get(part)) for part in SIGNATURE)


def _same_options(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    ignored = {*SIGNATURE, "name", "v", "background", "ns"}
    return all(_same(left.get(part), right.get(part)) for part in (left.keys() | right.keys()) - ignored)


def _same(left: Any, right: Any) -> bool:
    """Compare as the server does: 1 is 1.0, and the order of fields counts."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return compare(left, right) == 0
    return bool(left == right)
