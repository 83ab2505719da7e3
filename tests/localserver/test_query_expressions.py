"""What aggregation expressions yield."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.values import MISSING, equal, type_name

NOW = datetime(2024, 1, 31, 12, 30, 15, 250000, tzinfo=UTC)
DOCUMENT = {
    "n": 5, "x": 2.5, "s": "Héllo", "null": None, "a": [3, 1, 2], "docs": [{"k": 1}, {"k": 2}, 7, {"z": 1}],
    "d": NOW, "far": DatetimeMS(2**50), "o": {"p": {"q": 1}},
}  # fmt: skip


def evaluate(expression: Any, **variables: Any) -> Any:
    return compile_expression(expression)(DOCUMENT, {"NOW": NOW, **variables})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        pytest.param("$o.p.q", 1, id="path"),
        pytest.param("$docs.k", [1, 2], id="path through an array"),
        pytest.param("$nope.x", MISSING, id="missing"),
        pytest.param("$$REMOVE", MISSING, id="REMOVE"),
        pytest.param({"a": "$nope", "b": "$n"}, {"b": 5}, id="missing fields are left out"),
        pytest.param(["$nope", 1], [None, 1], id="missing elements are null"),
        pytest.param({"$literal": "$n"}, "$n", id="literal"),
        pytest.param({"$eq": ["$nope", None]}, False, id="missing is not null"),
        pytest.param({"$gt": ["$n", "$nope"]}, True, id="anything is above missing"),
        pytest.param({"$lt": [5, "a"]}, True, id="across types"),
        pytest.param({"$and": []}, True, id="and of nothing"),
        pytest.param({"$not": [0]}, True, id="zero is false"),
        pytest.param({"$not": [""]}, False, id="an empty string is true"),
        pytest.param({"$cond": {"if": "$nope", "then": 1, "else": 2}}, 2, id="cond"),
        pytest.param({"$ifNull": ["$nope", "$null", 3]}, 3, id="ifNull"),
        pytest.param(
            {"$switch": {"branches": [{"case": False, "then": 1}, {"case": True, "then": 2}]}}, 2, id="switch"
        ),
        pytest.param({"$let": {"vars": {"v": 2}, "in": {"$add": ["$$v", "$n"]}}}, 7, id="let"),
        pytest.param({"$add": ["$n", "$null"]}, None, id="null is catching"),
        pytest.param({"$add": ["$d", 1000]}, NOW.replace(second=16), id="a date and milliseconds"),
        pytest.param({"$subtract": ["$d", "$d"]}, Int64(0), id="between dates"),
        pytest.param({"$subtract": ["$far", "$d"]}, Int64(2**50 - 1706704215250), id="from a date beyond 9999"),
        pytest.param({"$add": ["$far", -(2**50)]}, datetime(1970, 1, 1, tzinfo=UTC), id="back from beyond 9999"),
        pytest.param({"$divide": [4, 2]}, 2.0, id="division"),
        pytest.param({"$mod": [-7, 3]}, -1, id="the remainder has the dividend's sign"),
        pytest.param({"$round": [2.5]}, 2.0, id="half to even"),
        pytest.param({"$round": [1250, -2]}, 1200, id="rounding to hundreds"),
        pytest.param({"$trunc": [-1.79, 1]}, -1.7, id="trunc"),
        pytest.param({"$ceil": -1.5}, -1.0, id="ceil"),
        pytest.param({"$pow": [2, 10]}, 1024, id="pow"),
        pytest.param({"$pow": [Decimal128("1.5"), 2]}, Decimal128("2.25"), id="a power of a decimal"),
        pytest.param({"$pow": [Decimal128("2"), 10]}, Decimal128("1024"), id="another one"),
        pytest.param({"$sqrt": Decimal128("2.25")}, Decimal128("1.5"), id="the root of a decimal"),
        pytest.param({"$add": [Decimal128("0.1"), Decimal128("0.2")]}, Decimal128("0.3"), id="decimals"),
        pytest.param({"$add": [0.1, 0.2, 0.3]}, 0.6, id="a sum loses nothing on the way"),
        pytest.param({"$sum": [1e16, 1.0, -1e16]}, 1.0, id="nor where it is large in between"),
        pytest.param({"$add": [Int64(2**53 + 1), 0.5, 0.5]}, 9007199254740994.0, id="nor does a long beside doubles"),
        pytest.param({"$sum": [Int64(2**63 - 1), 1, -2]}, Int64(2**63 - 2), id="beyond long and back"),
        pytest.param({"$add": [Int64(2**63 - 1), 1]}, 2.0**63, id="beyond long"),
        pytest.param({"$avg": {"$literal": [0.1] * 10}}, 0.1, id="avg loses nothing either"),
        pytest.param({"$sum": [1, 2.5, Decimal128("0.5"), -0.5]}, Decimal128("3.5"), id="decimals and whole doubles"),
        pytest.param({"$sum": [1e308, 1e308]}, math.inf, id="beyond all doubles"),
        pytest.param({"$add": [math.inf, 1, -math.inf]}, math.nan, id="both infinities"),
        pytest.param({"$sum": ["$a", 1]}, 1, id="sum of several does not look into arrays"),
        pytest.param({"$sum": "$a"}, 6, id="sum of an array"),
        pytest.param({"$avg": "$a"}, 2.0, id="avg"),
        pytest.param({"$max": ["$n", "$null", 2]}, 5, id="max"),
        pytest.param({"$concat": ["a", "$nope"]}, None, id="concat with missing"),
        pytest.param({"$toUpper": "$s"}, "HéLLO", id="only ASCII letters change"),
        pytest.param({"$strLenBytes": "$s"}, 6, id="bytes"),
        pytest.param({"$substrCP": ["$s", 1, 2]}, "él", id="code points"),
        pytest.param({"$substr": ["$n", 0, -1]}, "5", id="substr of a number"),
        pytest.param({"$split": ["a,b", ","]}, ["a", "b"], id="split"),
        pytest.param({"$trim": {"input": " x\n"}}, "x", id="trim"),
        pytest.param(
            {"$regexFind": {"input": "$s", "regex": "l(l)"}},
            {"match": "ll", "idx": 2, "captures": ["l"]},
            id="regexFind",
        ),
        pytest.param({"$replaceAll": {"input": "aa", "find": "a", "replacement": "b"}}, "bb", id="replaceAll"),
        pytest.param({"$arrayElemAt": ["$a", -1]}, 2, id="from the end"),
        pytest.param({"$arrayElemAt": ["$a", 9]}, MISSING, id="beyond the end"),
        pytest.param({"$slice": ["$a", -2, 1]}, [1], id="slice"),
        pytest.param({"$filter": {"input": "$a", "as": "i", "cond": {"$gt": ["$$i", 1]}}}, [3, 2], id="filter"),
        pytest.param({"$map": {"input": "$a", "in": {"$multiply": ["$$this", 2]}}}, [6, 2, 4], id="map"),
        pytest.param(
            {"$reduce": {"input": "$a", "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}}, 6, id="reduce"
        ),
        pytest.param({"$in": [2, "$a"]}, True, id="in"),
        pytest.param({"$sortArray": {"input": "$a", "sortBy": -1}}, [3, 2, 1], id="sortArray"),
        pytest.param({"$objectToArray": "$o"}, [{"k": "p", "v": {"q": 1}}], id="objectToArray"),
        pytest.param({"$arrayToObject": [[["a", 1]]]}, {"a": 1}, id="arrayToObject"),
        pytest.param({"$range": [0, 5, 2]}, [0, 2, 4], id="range"),
        pytest.param({"$zip": {"inputs": [[1, 2], [3]]}}, [[1, 3]], id="zip"),
        pytest.param({"$setUnion": [[2, 1], [1.0, 3]]}, [1, 2, 3], id="union"),
        pytest.param({"$setIsSubset": [[1, 1], [1, 2]]}, True, id="subset"),
        pytest.param({"$mergeObjects": [{"a": 1}, None, {"b": 2}]}, {"a": 1, "b": 2}, id="mergeObjects"),
        pytest.param({"$arrayToObject": {"$literal": []}}, {}, id="arrayToObject of nothing"),
        pytest.param(
            {"$setField": {"field": {"$literal": "$price"}, "input": {}, "value": 1}}, {"$price": 1}, id="$ in a name"
        ),
        pytest.param({"$getField": {"$concat": ["s"]}}, "Héllo", id="a name that is calculated"),
        pytest.param(
            {"$unsetField": {"field": {"$literal": "$a"}, "input": {"$literal": {"$a": 1, "b": 2}}}},
            {"b": 2},
            id="unsetField",
        ),
        pytest.param({"$getField": {"field": "q", "input": "$o.p"}}, 1, id="getField"),
        pytest.param({"$setField": {"field": "a.b", "input": {}, "value": 1}}, {"a.b": 1}, id="setField"),
        pytest.param({"$type": "$nope"}, "missing", id="type"),
        pytest.param({"$isNumber": "$s"}, False, id="isNumber"),
        pytest.param({"$binarySize": {"$literal": Binary(b"\x27\0" + b"0" * 8, 9)}}, 10, id="size of a vector"),
        pytest.param({"$type": {"$literal": Binary(b"\x27\0", 9)}}, "binData", id="type of a vector"),
        pytest.param({"$binarySize": "$s"}, 6, id="size of a text"),
        pytest.param({"$binarySize": "$nope"}, None, id="size of nothing"),
        pytest.param({"$bsonSize": "$o"}, 20, id="size of a document"),
        pytest.param({"$lt": [{"$rand": {}}, 1]}, True, id="rand"),
        pytest.param({"$convert": {"input": "x", "to": "int", "onError": -1}}, -1, id="convert"),
        pytest.param({"$toString": True}, "true", id="toString of a bool"),
        pytest.param({"$toString": 5.0}, "5", id="toString of a double"),
        pytest.param({"$toString": "$d"}, "2024-01-31T12:30:15.250Z", id="toString of a date"),
        pytest.param({"$toObjectId": "0" * 24}, ObjectId("0" * 24), id="toObjectId"),
        pytest.param({"$toDate": "2024-01-31T13:30:15.250+01:00"}, NOW, id="toDate"),
        pytest.param({"$year": "$d"}, 2024, id="year"),
        pytest.param({"$dayOfWeek": "$d"}, 4, id="Sunday is 1"),
        pytest.param({"$hour": {"date": "$d", "timezone": "+02:00"}}, 14, id="in a time zone"),
        pytest.param(
            {"$dateToString": {"date": "$d", "format": "%Y-%m-%d %H:%M"}}, "2024-01-31 12:30", id="dateToString"
        ),
        pytest.param(
            {"$dateAdd": {"startDate": "$d", "unit": "month", "amount": 1}},
            NOW.replace(month=2, day=29),
            id="end of month",
        ),
        pytest.param(
            {"$dateDiff": {"startDate": datetime(2023, 12, 31, tzinfo=UTC), "endDate": "$d", "unit": "year"}},
            Int64(1),
            id="boundaries, not lengths",
        ),
        pytest.param({"$dateTrunc": {"date": "$d", "unit": "week"}}, datetime(2024, 1, 28, tzinfo=UTC), id="dateTrunc"),
    ],
)
def test_expressions_yield_what_the_server_does(expression: Any, expected: Any) -> None:
    found = evaluate(expression)
    assert type_name(found) == type_name(expected)
    assert equal(found, expected), found


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        pytest.param({"$divide": [1, 0]}, 2, id="division by zero"),
        pytest.param({"$add": ["$s", 1]}, 14, id="a string in a sum"),
        pytest.param({"$add": ["$d", "$d"]}, 16612, id="two dates"),
        pytest.param({"$size": "$n"}, 17124, id="size of a scalar"),
        pytest.param({"$in": [1, 2]}, 40081, id="in a scalar"),
        pytest.param({"$toInt": "x"}, 241, id="no number"),
        pytest.param({"$toInt": 2.0**40}, 241, id="too large a number"),
        *(
            pytest.param({name: value}, 16007, id=f"{name} of {type_name(value)}")
            for name in ("$toLower", "$toUpper")
            for value in (True, ObjectId("0" * 24))
        ),
        pytest.param({"$substrCP": [True, 0, 1]}, 16007, id="$substrCP of a bool"),
        pytest.param({"$strcasecmp": ["a", True]}, 16007, id="$strcasecmp of a bool"),
        pytest.param(
            {"$arrayToObject": {"$literal": [["a", 1], {"k": "b", "v": 2}]}}, 40396, id="arrays, then objects"
        ),
        pytest.param(
            {"$arrayToObject": {"$literal": [{"k": "b", "v": 2}, ["a", 1]]}}, 40391, id="objects, then arrays"
        ),
        pytest.param({"$arrayToObject": {"$literal": [["a"]]}}, 40397, id="an array of one"),
        pytest.param({"$arrayToObject": {"$literal": [[1, 2]]}}, 40395, id="a key that is not a string"),
        pytest.param({"$arrayToObject": {"$literal": [{"k": "a"}]}}, 40392, id="no value"),
        pytest.param({"$arrayToObject": {"$literal": [{"k": "a", "x": 1}]}}, 40393, id="another name"),
        pytest.param({"$arrayToObject": {"$literal": [1]}}, 40398, id="neither arrays nor objects"),
        pytest.param({"$setField": {"field": "$s", "input": {}, "value": 1}}, 4161107, id="a name from a document"),
        pytest.param({"$sqrt": Decimal128("-1")}, 28714, id="the root of a negative decimal"),
        pytest.param({"$pow": [Decimal128("2"), 0.5]}, 238, id="a power that is not whole"),
        pytest.param({"$pow": [Decimal128("1.1"), 1000]}, 238, id="a power with too many digits"),
        pytest.param({"$pow": [Decimal128("0"), -1]}, 28764, id="a negative power of no decimal"),
        pytest.param({"$binarySize": "$n"}, 51276, id="size of a number"),
        pytest.param({"$bsonSize": "$n"}, 31393, id="no document"),
        pytest.param({"$foo": 1}, 238, id="an operator that nobody has"),
        pytest.param({"$sin": 1}, 238, id="an operator that is left out"),
        pytest.param("$$CLUSTER_TIME", 238, id="a variable that is left out"),
        pytest.param("$$nobody", 17276, id="an undefined variable"),
        pytest.param({"$cond": {"then": 1, "else": 2}}, 17080, id="cond without if"),
        pytest.param({"$cond": {"if": 1, "else": 2}}, 17081, id="cond without then"),
        pytest.param({"$cond": {"if": 1, "then": 1}}, 17082, id="cond without else"),
        pytest.param({"$cond": {"if": 1, "then": 1, "else": 2, "x": 3}}, 17083, id="cond with more"),
        pytest.param({"$eq": [1]}, 16020, id="too few arguments"),
        pytest.param({"$eq": [1, 2], "$ne": [1, 2]}, 15983, id="two operators"),
        pytest.param({"$add": [Decimal128("1"), 0.1]}, 238, id="decimal and fraction"),
    ],
)
def test_what_is_wrong_or_not_known_is_refused(expression: Any, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        evaluate(expression)
    assert caught.value.code == code


def test_a_variable_that_is_known_to_be_absent_is_refused_at_once() -> None:
    with pytest.raises(CommandError, match="Use of undefined variable: y"):
        compile_expression({"$let": {"vars": {"x": 1}, "in": "$$y"}}, names=["NOW"])


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        pytest.param({"$add": [2**31 - 1, 1]}, "long", id="int becomes long"),
        pytest.param({"$add": [1, Int64(1)]}, "long", id="long stays"),
        pytest.param({"$multiply": [Int64(2**62), 4]}, "double", id="long becomes double"),
        pytest.param({"$add": [1, 1.0]}, "double", id="double wins"),
        pytest.param({"$add": [1, Decimal128("1")]}, "decimal", id="decimal wins"),
    ],
)
def test_numbers_widen_as_on_the_server(expression: Any, kind: str) -> None:
    assert type_name(evaluate(expression)) == kind


def test_infinities_pass_through_arithmetic() -> None:
    assert evaluate({"$multiply": [math.inf, 2]}) == math.inf
