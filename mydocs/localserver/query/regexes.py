"""Convert the server's regular expressions (PCRE) to Python's. Refuse those with another meaning. Pure."""

import functools
import re
import warnings
from typing import Any

from bson.regex import Regex

from mydocs.localserver.errors import CommandError, NotKnown

# Escapes with another meaning in Python, or that only Python has.
_DIFFERENT_ESCAPES = re.compile(r"(?<!\\)(?:\\\\)*\\([ZvNuU])")
_POSIX_CLASS = re.compile(r"\[[^\]]*\[[:.=]")
_ASCII_CLASSES = re.compile(r"(?<!\\)(?:\\\\)*\\[wWdDsSbB]")
_FLAGS = {"i": re.I, "m": re.M, "s": re.S, "x": re.X, "u": re.NOFLAG}
_KNOWN_FLAGS = re.I | re.M | re.S | re.X | re.U


def compile_regex(pattern: Any, options: Any = None, *, owner: str = "$regex") -> re.Pattern[str]:
    """
    Compile a pattern given as text or as a regular expression value.

    :param owner: the operator for an error message
    """
    flags = re.NOFLAG
    if isinstance(pattern, Regex | re.Pattern):
        flags = re.RegexFlag(pattern.flags) & ~re.U
        if flags & ~_KNOWN_FLAGS:
            raise CommandError(51108, f"{owner} invalid flag in regex options")
        if flags and options:
            raise CommandError(51075, f"options set in both {owner} and $options")
        pattern = pattern.pattern
    if isinstance(pattern, bytes):
        pattern = pattern.decode()
    if not isinstance(pattern, str):
        raise CommandError(2, f"{owner} has to be a string")
    if not isinstance(options, str | None):
        raise CommandError(2, f"the options of {owner} have to be a string")
    for letter in options or "":
        if letter not in _FLAGS:
            raise CommandError(51108, f"{owner} invalid flag in regex options: {letter}")
        flags |= _FLAGS[letter]
    if "\0" in pattern:
        raise CommandError(51109, "Regular expression cannot contain an embedded null byte")
    return _compile(pattern, flags)


@functools.lru_cache(maxsize=256)
def _compile(pattern: str, flags: re.RegexFlag) -> re.Pattern[str]:
    if found := _DIFFERENT_ESCAPES.search(pattern):
        raise NotKnown(f"\\{found.group(1)} in a regular expression")
    if _POSIX_CLASS.search(pattern):
        raise NotKnown("POSIX character classes in a regular expression")
    if _ASCII_CLASSES.search(pattern):
        # For the server \w and the like are ASCII, since it does not set PCRE's UCP. Letter case is still Unicode's.
        if flags & re.I and not pattern.isascii():
            raise NotKnown("\\w, \\d, \\s or \\b beside other than ASCII letters in a regular expression with option i")
        flags |= re.ASCII
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(pattern, flags)
    except re.error as error:
        raise NotKnown(f"the regular expression /{pattern}/ (Python's re says: {error})") from error
