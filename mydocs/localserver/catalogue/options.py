"""Check and complete the options of `create` and `collMod`. Pure."""

from collections.abc import Mapping
from typing import Any

from mydocs.localserver.catalogue.collection import COLLECTION, NO_TIME, TIME_SERIES, VIEW
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.values import is_number, to_int, type_name

Options = dict[str, Any]

CREATE = fields(
    "capped:bool size:any max:any timeseries:object viewOn:string pipeline:array validator:object "
    "validationLevel:string validationAction:string expireAfterSeconds:any changeStreamPreAndPostImages:object "
    "clusteredIndex:any storageEngine:any indexOptionDefaults:any encryptedFields:any autoIndexId:bool idIndex:any"
)
NOT_DONE = ("clusteredIndex", "storageEngine", "indexOptionDefaults", "encryptedFields")
TIME_FIELDS = fields(
    "timeField:string! metaField:string granularity:string bucketMaxSpanSeconds:number bucketRoundingSeconds:number"
)
SPANS = {"seconds": 3600, "minutes": 86_400, "hours": 2_592_000}  # the most seconds that one bucket spans
CAPPED_STEP = 256  # bytes; the size of a capped collection is rounded up to a multiple of it
VALIDATION = {"validationLevel": ("off", "strict", "moderate"), "validationAction": ("error", "warn")}


def collection_options(body: Mapping[str, Any]) -> tuple[str, Options]:
    """
    Return the kind of collection that a `create` command asks for, and the options as they are listed.

    :raises CommandError: if an option is wrong, or options do not go together
    """
    for option in NOT_DONE:
        if body.get(option):
            raise NotKnown(f"the option '{option}' of create")
    if "viewOn" in body:
        return VIEW, _view(body)
    if body.get("pipeline"):
        raise CommandError(72, "'pipeline' requires 'viewOn' to also be specified")
    options = validation("create", body)
    if "changeStreamPreAndPostImages" in body:
        options["changeStreamPreAndPostImages"] = body["changeStreamPreAndPostImages"]
    if "timeseries" in body:
        if body.get("capped") or "validator" in options:
            raise CommandError(72, "'timeseries' is not allowed with 'capped' or 'validator'")
        return TIME_SERIES, {**options, **_time_series(body)}
    if "expireAfterSeconds" in body:
        raise CommandError(72, "'expireAfterSeconds' is only supported on time-series collections")
    return COLLECTION, {**options, **_capped(body)}


def _view(body: Mapping[str, Any]) -> Options:
    if not body["viewOn"]:
        raise CommandError(2, "'viewOn' cannot be empty")
    for option in ("capped", "size", "max", "validator", "timeseries", "expireAfterSeconds"):
        if body.get(option):
            raise CommandError(72, f"Cannot set '{option}' on a view")
    pipeline = body.get("pipeline", [])
    for stage in pipeline:
        if isinstance(stage, Mapping) and {"$out", "$merge"} & stage.keys():
            raise CommandError(167, f"{next(iter(stage))} is not allowed in the pipeline of a view")
    return {"viewOn": body["viewOn"], "pipeline": list(pipeline)}


def _time_series(body: Mapping[str, Any]) -> Options:
    given = checked("create.timeseries", body["timeseries"], TIME_FIELDS)
    names = [given[name] for name in ("timeField", "metaField") if name in given]
    if any(not name or name.startswith("$") or "." in name for name in names) or "_id" in names:
        raise CommandError(72, "'timeField' and 'metaField' must be the names of top-level fields other than _id")
    if len(set(names)) != len(names):
        raise CommandError(72, "'metaField' cannot be the same as 'timeField'")
    if "granularity" in given and given["granularity"] not in SPANS:
        raise CommandError(
            2, f"Enumeration value '{given['granularity']}' for field 'timeseries.granularity' is not a valid value."
        )
    if "bucketMaxSpanSeconds" in given or "bucketRoundingSeconds" in given:
        if given.get("bucketMaxSpanSeconds") != given.get("bucketRoundingSeconds") or "granularity" in given:
            raise CommandError(
                72, "'bucketMaxSpanSeconds' and 'bucketRoundingSeconds' must be equal, and not beside 'granularity'"
            )
    else:
        granularity = given.setdefault("granularity", "seconds")
        given["bucketMaxSpanSeconds"] = SPANS[granularity]
    return {"timeseries": given, **expiry(body)}


def expiry(body: Mapping[str, Any]) -> Options:
    """Return the expiry of a time series collection."""
    seconds = body.get("expireAfterSeconds")
    if seconds is None or seconds == "off":
        return {}
    if not is_number(seconds) or not 0 <= float(str(seconds)) < 2**31:
        raise CommandError(72, "'expireAfterSeconds' must be 'off' or a number of seconds of at least 0")
    return {"expireAfterSeconds": seconds}


def _capped(body: Mapping[str, Any]) -> Options:
    if not body.get("capped"):
        if body.get("size") is not None or body.get("max") is not None:
            raise CommandError(
                72, "the 'capped' field needs to be true when either the 'size' or 'max' fields are present"
            )
        return {}
    size, most = to_int(body.get("size")), to_int(body.get("max", 0))
    if body.get("size") is None:
        raise CommandError(72, "the 'size' field is required when 'capped' is true")
    if size is None or size <= 0 or most is None:
        raise CommandError(14 if not is_number(body["size"]) else 2, "'size' and 'max' must be whole numbers")
    rounded = -(-size // CAPPED_STEP) * CAPPED_STEP
    return {"capped": True, "size": rounded, **({"max": most} if most > 0 else {})}


def validation(command: str, body: Mapping[str, Any]) -> Options:
    """Return the validator of a command, its level and its action, as far as the command names them."""
    found: Options = {}
    if "validator" in body:
        compile_filter(dict(body["validator"]), now=NO_TIME)
        if "$$NOW" in str(body["validator"]):
            raise NotKnown("$$NOW in a validator")
        found["validator"] = dict(body["validator"])
    for name, known in VALIDATION.items():
        if name in body:
            if body[name] not in known:
                raise CommandError(
                    2 if isinstance(body[name], str) else 14,
                    f"Enumeration value '{body[name]}' for field '{command}.{name}' is not a valid value "
                    f"({type_name(body[name])}).",
                )
            found[name] = body[name]
    if "validator" in found and command == "create":
        found = {"validationLevel": "strict", "validationAction": "error", **found}
        found["validator"] = found.pop("validator")
    return found
