"""
Show what comes from outside so that neither a terminal nor a CI service takes it for a command. Pure.

What is escaped stays readable: an ESC becomes the four characters ``\\x1b``.
"""

import re

# C0 but tab and line feed, DEL, C1; then what changes the direction of a line or ends one, and half of a character.
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb"
_CONTROL = re.compile(f"[{CONTROLS}]")
# GitHub's runner trims a line before it looks for `::`, and finds `##[` anywhere in it; Azure's looks for `##vso[`:
# actions/runner, src/Runner.Common/ActionCommand.cs; microsoft/azure-pipelines-agent, Command.cs.
_AT_LINE_START = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_ANYWHERE = re.compile(r"#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)


def visible(text: str) -> str:
    """Write control characters as their escapes; tabs and line ends stay."""
    return _CONTROL.sub(lambda match: _escape(match[0]), text)


def harmless(text: str) -> str:
    """Write a text for a terminal or the log of a CI service: visible, and with no command of a workflow."""
    return _ANYWHERE.sub(r"\\x23", _AT_LINE_START.sub(r"\1\\x3a", visible(text)))


def harmless_json(text: str) -> str:
    """Write the text of a JSON document likewise; to a reader of JSON it says the same as before."""
    return _ANYWHERE.sub(r"\\u0023", _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_SHORT = {"\r": "\\r"}
