"""Take credentials out of a text, however they are written there. Pure."""

import re
from collections.abc import Iterable

# Options of a connection string whose values are secrets or hold some.
SECRET_OPTIONS = frozenset({"authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"})
# Of the properties of authMechanismProperties, those that are no secrets: specifications/source/auth/auth.md.
PUBLIC_PROPERTIES = frozenset(
    {"SERVICE_NAME", "SERVICE_HOST", "SERVICE_REALM", "CANONICALIZE_HOST_NAME", "ENVIRONMENT", "TOKEN_RESOURCE"}
)
SHORT_SECRET = 8  # characters; a shorter one is replaced only where it stands alone, or "a" would eat every sentence
REPLACEMENT = "***"
USERINFO = r"(mongodb(?:\+srv)?://)[^\s'\"<>]*@"


def pattern_of(secret: str) -> str:
    """
    Return a regular expression for a secret as it is, and percent-encoded in whole or in part, as a URL may have it.

    Any character may be encoded, in upper or lower case, and a space may be a plus sign.
    """
    return "".join(_character(character) for character in secret)


def _character(character: str) -> str:
    encoded = "".join(
        "%" + "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in f"{byte:02X}")
        for byte in character.encode("utf-8", "surrogatepass")
    )
    return rf"(?:{re.escape(character)}|{encoded}{'|' + re.escape('+') if character == ' ' else ''})"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Take every credential out of a text: the user part of any connection string, and the secrets by name."""
    clean = re.sub(USERINFO, rf"\1{REPLACEMENT}@", text, flags=re.IGNORECASE)
    for secret in sorted(set(secrets) - {""}, key=len, reverse=True):
        pattern = pattern_of(secret)
        if len(secret) < SHORT_SECRET:
            pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
        clean = re.sub(pattern, REPLACEMENT, clean)
    return clean
