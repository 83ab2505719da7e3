"""Evaluate expressions on dates. Pure."""

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import timezone as fixed_zone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions.core import Builder, Compiler, Evaluate, Scope, named_functions, nullish
from mydocs.localserver.query.expressions.types import parse_date
from mydocs.localserver.query.values import from_millis, to_int, to_millis, type_name

_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_MONTHS = {"year": 12, "quarter": 3, "month": 1}


def _zone(timezone: Any) -> tzinfo | None:
    if nullish(timezone):
        return None
    if not isinstance(timezone, str):
        raise CommandError(40517, f"timezone must evaluate to a string, found {type_name(timezone)}")
    if found := re.fullmatch(r"([+-])(\d\d):?(\d\d)?", timezone, re.ASCII):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        return fixed_zone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise CommandError(40485, f'unrecognized time zone identifier: "{timezone}"') from error


def _moment(name: str, value: Any, zone: tzinfo = UTC) -> datetime:
    if isinstance(value, ObjectId):
        date = value.generation_time
    elif isinstance(value, Timestamp):
        date = value.as_datetime()
    elif type_name(value) == "date":
        date = from_millis(to_millis(value))
        if not isinstance(date, datetime):
            raise NotKnown(f"{name} of a date beyond the year 9999")
    else:
        raise CommandError(16006, f"can't convert from BSON type {type_name(value)} to Date")
    return date.astimezone(zone)


def _part(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    timezone: Evaluate = lambda _: "UTC"  # noqa: E731  # as short as its use
    if isinstance(argument, dict) and "date" in argument:
        parts = compiler.named(name, argument, ("date",), ("timezone",))
        source, timezone = parts["date"], parts.get("timezone", timezone)
    else:
        (source,) = compiler.arguments(name, argument, 1, 1)

    def evaluate(scope: Scope) -> Any:
        value, zone = source(scope), _zone(timezone(scope))
        return None if nullish(value) or zone is None else _PARTS[name](_moment(name, value, zone))

    return evaluate


_PARTS: dict[str, Callable[[datetime], int]] = {
    "$year": lambda date: date.year,
    "$month": lambda date: date.month,
    "$dayOfMonth": lambda date: date.day,
    "$hour": lambda date: date.hour,
    "$minute": lambda date: date.minute,
    "$second": lambda date: date.second,
    "$millisecond": lambda date: date.microsecond // 1000,
    "$dayOfWeek": lambda date: date.isoweekday() % 7 + 1,
    "$dayOfYear": lambda date: date.timetuple().tm_yday,
}

_FORMATS: dict[str, Callable[[datetime], str]] = {
    "Y": lambda date: f"{date.year:04d}",
    "m": lambda date: f"{date.month:02d}",
    "d": lambda date: f"{date.day:02d}",
    "H": lambda date: f"{date.hour:02d}",
    "M": lambda date: f"{date.minute:02d}",
    "S": lambda date: f"{date.second:02d}",
    "L": lambda date: f"{date.microsecond // 1000:03d}",
    "j": lambda date: f"{date.timetuple().tm_yday:03d}",
    "w": lambda date: str(date.isoweekday() % 7 + 1),
    "u": lambda date: str(date.isoweekday()),
    "G": lambda date: f"{date.isocalendar().year:04d}",
    "V": lambda date: f"{date.isocalendar().week:02d}",
    "z": lambda date: f"{date:%z}",
    "%": lambda _: "%",
}


def _to_string(date: Any, pattern: Any = None, timezone: Any = "UTC", onNull: Any = None) -> Any:  # noqa: N803  # the server's name
    if nullish(date):
        return onNull
    zone = _zone(timezone)
    if zone is None:
        return None
    if pattern is None:
        pattern = "%Y-%m-%dT%H:%M:%S.%LZ" if timezone == "UTC" else "%Y-%m-%dT%H:%M:%S.%L%z"
        if timezone != "UTC":
            raise NotKnown("$dateToString with a timezone and without a format")
    if not isinstance(pattern, str):
        raise CommandError(18533, f"$dateToString requires that 'format' be a string, found: {type_name(pattern)}")
    moment = _moment("$dateToString", date, zone)

    def replace(found: re.Match[str]) -> str:
        letter = found[1]
        if letter not in _FORMATS:
            raise (
                NotKnown(f"%{letter} in $dateToString")
                if letter and letter in "BbZU"
                else CommandError(18536, f"Invalid format character '%{letter}' in format string")
            )
        return _FORMATS[letter](moment)

    return re.sub(r"%(.?)", replace, pattern, flags=re.S)


def _from_string(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if isinstance(argument, dict) and "format" in argument:
        raise NotKnown("$dateFromString with a format")
    parts = compiler.named(name, argument, ("dateString",), ("timezone", "onError", "onNull"))

    def evaluate(scope: Scope) -> Any:
        text = parts["dateString"](scope)
        if nullish(text):
            return parts["onNull"](scope) if "onNull" in parts else None
        zone = _zone(parts["timezone"](scope)) if "timezone" in parts else UTC
        if zone is None:
            return None
        try:
            if not isinstance(text, str):
                raise CommandError(
                    241, f"$dateFromString requires that 'dateString' be a string, found: {type_name(text)}"
                )
            date = parse_date(text)
        except CommandError:
            if "onError" in parts:
                return parts["onError"](scope)
            raise
        if zone is UTC:
            return date
        if re.search(r"(Z|[+-]\d\d:?\d\d)$", text[10:]):
            raise CommandError(
                241,
                "you cannot pass in a date/time string with time zone information together with a timezone argument",
            )
        return date.replace(tzinfo=zone).astimezone(UTC)

    return evaluate


def _months_later(date: datetime, months: int) -> datetime:
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    day = min(date.day, calendar.monthrange(year, month + 1)[1])
    return date.replace(year=year, month=month + 1, day=day)


def _shift(name: str, sign: int) -> Callable[..., Any]:
    def evaluate(startDate: Any, unit: Any, amount: Any, timezone: Any = "UTC") -> Any:  # noqa: N803  # the server's names
        zone = _zone(timezone)
        if nullish(startDate) or nullish(unit) or nullish(amount) or zone is None:
            return None
        _check_unit(name, unit)
        count = to_int(amount)
        if count is None:
            raise CommandError(5166405, f"{name} expects integer amount of time units")
        date = _moment(name, startDate, zone)
        try:
            if unit in _MONTHS:
                moved = _months_later(date, sign * count * _MONTHS[unit])
            elif unit in ("day", "week"):
                moved = date + timedelta(seconds=_SECONDS[unit] * sign * count)  # by the local time of the zone
            else:
                moved = date.astimezone(UTC) + timedelta(milliseconds=_unit_millis(name, unit) * sign * count)
        except (OverflowError, ValueError) as error:
            raise CommandError(5166406, f"{name} overflowed") from error
        return moved.astimezone(UTC)

    return evaluate


def _check_unit(name: str, unit: Any) -> None:
    if not isinstance(unit, str):
        raise CommandError(5439013, f"{name} requires 'unit' to be a string, but got {type_name(unit)}")


def _unit_millis(name: str, unit: Any) -> int:
    if unit == "millisecond":
        return 1
    if unit not in _SECONDS:
        raise CommandError(9, f"{name} parameter 'unit' value cannot be recognized as a time unit: {unit}")
    return _SECONDS[unit] * 1000


def _utc_only(name: str, timezone: Any) -> None:
    if timezone not in ("UTC", "GMT", "Etc/UTC"):
        raise NotKnown(f"{name} in another time zone than UTC")


def _week_start(name: str, day: Any) -> int:
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    for at, full in enumerate(names):
        if isinstance(day, str) and day.lower() in (full, full[:3]):
            return at
    raise CommandError(9, f"{name} parameter 'startOfWeek' value cannot be recognized as a day of a week: {day}")


def _difference(startDate: Any, endDate: Any, unit: Any, timezone: Any = "UTC", startOfWeek: Any = "sunday") -> Any:  # noqa: N803  # the server's names
    if nullish(startDate) or nullish(endDate) or nullish(unit) or nullish(timezone):
        return None
    name = "$dateDiff"
    _utc_only(name, timezone)
    _check_unit(name, unit)
    start, end = _moment(name, startDate), _moment(name, endDate)
    if unit in _MONTHS:

        def index(date: datetime) -> int:
            return (date.year * 12 + date.month - 1) // _MONTHS[unit]

        return Int64(index(end) - index(start))
    size = _unit_millis(name, unit)
    # The number of boundaries between the two. A week begins on the requested day (1970-01-01 was a Thursday).
    shift = (3 - _week_start(name, startOfWeek)) * 86_400_000 if unit == "week" else 0
    return Int64((to_millis(end) + shift) // size - (to_millis(start) + shift) // size)


def _truncate(date: Any, unit: Any, binSize: Any = 1, timezone: Any = "UTC", startOfWeek: Any = "sunday") -> Any:  # noqa: N803  # the server's names
    if nullish(date) or nullish(unit) or nullish(binSize) or nullish(timezone):
        return None
    name = "$dateTrunc"
    _utc_only(name, timezone)
    _check_unit(name, unit)
    moment, count = _moment(name, date), to_int(binSize)
    if count is None or count < 1:
        raise CommandError(5439018, f"{name} requires 'binSize' to be greater than 0")
    # Bins start at 2000-01-01, weeks at the first startOfWeek on or after it (src/mongo/db/query/datetime).
    reference = datetime(2000, 1, 1, tzinfo=UTC)
    if unit in _MONTHS:
        span = _MONTHS[unit] * count
        months = (moment.year - 2000) * 12 + moment.month - 1
        return _months_later(reference, months // span * span)
    if unit == "week":
        reference += timedelta(days=(_week_start(name, startOfWeek) - reference.weekday()) % 7)
    size = _unit_millis(name, unit) * count
    start = to_millis(reference)
    return from_millis(start + (to_millis(moment) - start) // size * size)


DATES: dict[str, Builder] = {
    **dict.fromkeys(_PARTS, _part),
    "$dateFromString": _from_string,
    **named_functions(
        {
            "$dateToString": (_to_string, ("date",), ("format", "timezone", "onNull")),
            "$dateAdd": (_shift("$dateAdd", 1), ("startDate", "unit", "amount"), ("timezone",)),
            "$dateSubtract": (_shift("$dateSubtract", -1), ("startDate", "unit", "amount"), ("timezone",)),
            "$dateDiff": (_difference, ("startDate", "endDate", "unit"), ("timezone", "startOfWeek")),
            "$dateTrunc": (_truncate, ("date", "unit"), ("binSize", "timezone", "startOfWeek")),
        }
    ),
}
