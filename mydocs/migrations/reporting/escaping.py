"""
Escape text from outside, so that neither a terminal nor a CI service takes it for a command. Pure.

Escaped text stays readable: an ESC becomes the four characters ``\\x1b``.
"""

import re

# C0 except tab and line feed, DEL, C1; then characters that change a line's direction or end it, and lone surrogates.
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb"
_CONTROL = re.compile(f"[{CONTROLS}]")
# GitHub's runner trims a line before it searches for `::`, and finds `##[` anywhere in it. Azure's searches for
# `##vso[`: actions/runner, src/Runner.Common/ActionCommand.cs; microsoft/azure-pipelines-agent, Command.cs.
_AT_LINE_START = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_ANYWHERE = re.compile(r"#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)


def visible(text: str) -> str:
    """Replace control characters by their escapes. Tabs and line ends stay."""
    return _CONTROL.sub(lambda match: _escape(match[0]), text)


def harmless(text: str) -> str:
    """Make a text safe for a terminal or a CI log: visible, and without a workflow command."""
    return _ANYWHERE.sub(r"\\x23", _AT_LINE_START.sub(r"\1\\x3a", visible(text)))


def harmless_json(text: str) -> str:
    """Make the text of a JSON document safe likewise. Its value stays the same."""
    return _ANYWHERE.sub(r"\\u0023", _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_SHORT = {"\r": "\\r"}
