"""Check custom analyzers, as mongot's CustomAnalyzerDefinition.java reads them. Pure."""

import re
import warnings
from collections.abc import Mapping
from typing import Any

from mydocs.localserver.search.forms import (
    Form,
    document,
    flag,
    listing,
    mapping,
    one_of,
    refuse,
    repeated,
    text,
    typed,
    whole,
    words,
)

# StockAnalyzerNames.java
STOCK = frozenset(
    "lucene." + name
    for name in words(
        "standard stop simple whitespace keyword arabic armenian basque bengali brazilian bulgarian catalan cjk "
        "chinese czech danish dutch english finnish french galician german greek hindi hungarian indonesian irish "
        "italian japanese korean kuromoji latvian lithuanian morfologik nori norwegian persian polish portuguese "
        "romanian russian smartcn sorani spanish swedish thai turkish ukrainian"
    )
)
STEMMERS = words(
    "arabic armenian basque catalan danish dutch english estonian finnish french german german2 hungarian irish "
    "italian lithuanian norwegian porter portuguese romanian russian spanish swedish turkish"
)
MAX_TOKEN = 1024 * 1024  # StandardTokenizer.MAX_TOKEN_LENGTH_LIMIT of Lucene

NOTHING = document({})


def _ordered(low: str, high: str, defaults: Mapping[str, int] | None = None) -> Any:
    def check(path: str, value: Mapping[str, Any]) -> None:
        given = {**(defaults or {}), **{name: number for name, number in value.items() if number is not None}}
        if given[low] > given[high]:
            refuse(f"{path}.{low}", f"must not be greater than {high}")

    return check


# Mistakes that are the same in Python's and Java's patterns. A mistake that only one of them reports is accepted.
MISTAKES = ("missing )", "unbalanced parenthesis", "unterminated character set", "nothing to repeat")


def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Compile as far as Python can, or return ``None``. Raise `re.error` for a pattern that is wrong in both."""
    java = (
        re.sub(r"\\[pP]\{\w+\}", r"\\w", pattern)
        .replace("(?<", "(?P<")
        .replace("(?P<=", "(?<=")
        .replace("(?P<!", "(?<!")
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # nested sets, which Java supports
            return re.compile(java)
    except re.error as error:
        if str(error.msg).startswith(MISTAKES):
            raise
        return None


def _regex(path: str, value: Any) -> None:
    text(empty=True)(path, value)
    try:
        _compiled(value)
    except re.error as error:
        refuse(path, f"is not a regular expression: {error.msg}")


def _group(path: str, value: Mapping[str, Any]) -> None:
    compiled = _compiled(value["pattern"])
    if compiled is not None and value["group"] > compiled.groups:
        refuse(f"{path}.group", f"is invalid: the pattern only has {compiled.groups} capturing groups")


def _unique(path: str, value: Any) -> None:
    listing(text(empty=True))(path, value)
    if repeated(value) is not None:
        refuse(path, "must be unique")


GRAMS = {"minGram": whole(0), "maxGram": whole(0)}
GRAM = document(GRAMS, also=_ordered("minGram", "maxGram"))
GRAM_FILTER = document(GRAMS, {"termNotInBounds": one_of("include", "omit")}, also=_ordered("minGram", "maxGram"))
LONGEST = document({}, {"maxTokenLength": whole(1, MAX_TOKEN)})
ORIGINALS = document({}, {"originalTokens": one_of("include", "omit")})
SHINGLES = {"minShingleSize": whole(2), "maxShingleSize": whole(2)}
DELIMITERS = dict.fromkeys(
    words(
        "generateWordParts generateNumberParts concatenateWords concatenateNumbers concatenateAll preserveOriginal "
        "splitOnCaseChange splitOnNumerics stemEnglishPossessive ignoreKeywords"
    ),
    flag,
)

TOKENIZER = typed(
    {
        "edgeGram": GRAM,
        "keyword": NOTHING,
        "nGram": GRAM,
        "regexCaptureGroup": document({"pattern": _regex, "group": whole(0)}, also=_group),
        "regexSplit": document({"pattern": _regex}),
        "standard": LONGEST,
        "uaxUrlEmail": LONGEST,
        "whitespace": LONGEST,
    }
)
CHAR_FILTER = typed(
    {
        "htmlStrip": document({}, {"ignoredTags": _unique}),
        "icuNormalize": NOTHING,
        "mapping": document({"mappings": mapping(text(empty=True), filled=True)}),
        "persian": NOTHING,
    }
)
PLAIN_FILTERS = words(
    "englishPossessive flattenGraph icuFolding keywordRepeat kStemming lowercase porterStemming removeDuplicates "
    "reverse spanishPluralStemming englishMinimalStemming stempel trim"
)
TOKEN_FILTERS: dict[str, Form] = {
    **dict.fromkeys(PLAIN_FILTERS, NOTHING),
    "asciiFolding": ORIGINALS,
    "daitchMokotoffSoundex": ORIGINALS,
    "edgeGram": GRAM_FILTER,
    "nGram": GRAM_FILTER,
    "icuNormalizer": document({}, {"normalizationForm": one_of("nfc", "nfd", "nfkc", "nfkd")}),
    "length": document({}, {"min": whole(0), "max": whole(0)}, also=_ordered("min", "max", {"min": 0, "max": 255})),
    "regex": document({"pattern": _regex, "replacement": text(empty=True), "matches": one_of("all", "first")}),
    "shingle": document(SHINGLES, also=_ordered("minShingleSize", "maxShingleSize")),
    "snowballStemming": document({"stemmerName": one_of(*STEMMERS)}),
    "stopword": document({"tokens": listing(text(empty=True), filled=True)}, {"ignoreCase": flag}),
    "wordDelimiterGraph": document(
        {},
        {
            "protectedWords": document({"words": listing(text())}, {"ignoreCase": flag}),
            "delimiterOptions": document({}, DELIMITERS),
        },
    ),
}


def _name(path: str, value: Any) -> None:
    text()(path, value)
    if value.startswith(("lucene.", "builtin.", "mongodb.")):
        refuse(path, "must not begin with lucene., builtin. or mongodb.")


ANALYZERS = listing(
    document(
        {"name": _name, "tokenizer": TOKENIZER},
        {"charFilters": listing(CHAR_FILTER), "tokenFilters": listing(typed(TOKEN_FILTERS))},
    ),
    unique="name",
)
