"""
Remove credentials from a text, in every form that they have there. Pure.

A secret may appear as it is, percent-encoded as in a URL, as written by Python's ``repr``, JSON or HTML, or in base64.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

# Options of a connection string whose values are secrets or contain some.
SECRET_OPTIONS = frozenset({"authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"})
# The properties of authMechanismProperties that are not secret: specifications/source/auth/auth.md.
PUBLIC_PROPERTIES = frozenset(
    {"SERVICE_NAME", "SERVICE_HOST", "SERVICE_REALM", "CANONICALIZE_HOST_NAME", "ENVIRONMENT", "TOKEN_RESOURCE"}
)
SHORT_SECRET = 8  # characters; a shorter one is replaced only as a whole word, or "a" would damage every sentence
SHORT_BASE64 = 5  # characters of base64 that a secret alone determines; fewer occur in any long text by chance
REPLACEMENT = "***"
USERINFO = re.compile(r"(mongodb(?:\+srv)?:(?:\\?/){2})[^\s'\"<>]*@", re.IGNORECASE)

# Each level of quoting doubles the backslashes. More than a few levels do not occur.
BACKSLASHES = r"\\{0,16}"
SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
HTML_NAMES = {"&": ["&amp;"], "<": ["&lt;"], ">": ["&gt;"], '"': ["&quot;"], "'": ["&apos;"]}
BASE64 = "A-Za-z0-9+/_-"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Remove every credential from a text: the user part of any connection string, and the given secrets."""
    clean = USERINFO.sub(rf"\1{REPLACEMENT}@", text)
    for pattern in _patterns(tuple(secrets)):
        clean = pattern.sub(REPLACEMENT, clean)
    return clean


@lru_cache(maxsize=64)
def _patterns(secrets: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of secrets, the longest first, since one may be part of another."""
    ordered = sorted(set(secrets) - {""}, key=lambda secret: (-len(secret), secret))
    return tuple(re.compile(pattern) for secret in ordered for pattern in (_written(secret), *_base64(secret)))


def _written(secret: str) -> str:
    """
    Return a pattern for a secret as it is, percent-encoded in whole or in part, or escaped for code or HTML.

    Any character may be encoded, in upper or lower case, and a space may be a plus sign.
    """
    pattern = "".join(_character(character) for character in secret)
    return rf"(?<![^\W_]){pattern}(?![^\W_])" if len(secret) < SHORT_SECRET else pattern


def _character(character: str) -> str:
    code, raw = ord(character), character.encode("utf-8", "surrogatepass")
    forms = [re.escape(character), "".join("%" + _hex(f"{byte:02X}") for byte in raw)]
    if character == " ":
        forms.append(re.escape("+"))
    if not character.isalnum() or not character.isascii():
        forms += [*HTML_NAMES.get(character, ()), rf"&#0*{code};", f"&#[xX]0*{_hex(f'{code:x}')};"]
        forms = [BACKSLASHES + forms[0], *forms[1:]]
        # The escapes of `ascii()`, of JSON (above 16 bits as two halves), and of bytes.
        units = character.encode("utf-16-be", "surrogatepass")
        halves = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
        escaped = [
            *([f"x{code:02x}"] if code < 0x100 else []),
            *(["U" + f"{code:08x}"] if code > 0xFFFF else []),
            *([SHORT_ESCAPES[character]] if character in SHORT_ESCAPES else []),
        ]
        forms += [rf"\\{BACKSLASHES}{one[0]}{_hex(one[1:])}" for one in escaped]
        forms.append("".join(rf"\\{BACKSLASHES}u{_hex(half)}" for half in halves))
        forms.append("".join(rf"\\{BACKSLASHES}x{_hex(f'{byte:02x}')}" for byte in raw))
    return f"(?:{'|'.join(forms)})"


def _hex(digits: str) -> str:
    """Return a pattern for hexadecimal digits in either case."""
    return "".join(f"[{digit.upper()}{digit.lower()}]" if digit.isalpha() else digit for digit in digits)


def _base64(secret: str) -> Iterator[str]:
    """
    Yield patterns for a secret inside base64, such as that of ``user:password``.

    The secret may begin at three places of a group of four characters. The first and the last character also contain
    bits of the neighbours, so they stay.
    """
    import base64  # only if there is a secret: `list` needs only the names above

    raw = secret.encode("utf-8", "surrogatepass")

    whole = base64.b64encode(raw).decode().rstrip("=")
    yield rf"(?<![{BASE64}]){_either_alphabet(whole)}={{0,2}}(?![{BASE64}])"
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        own = encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        if len(own) >= SHORT_BASE64:
            yield _either_alphabet(own)


def _either_alphabet(text: str) -> str:
    return "".join({"+": "[+-]", "/": "(?:\\\\?/|_)"}.get(character, character) for character in text)
