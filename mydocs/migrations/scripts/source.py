"""Read the text of a script, and give its checksum. I/O."""

import hashlib
import io
import tokenize
from pathlib import Path


def checksum(text: str) -> str:
    """
    Return the checksum of a script's text.

    A checkout may change line ends, and an editor the white space at line ends and the end of the file. None of these
    changes the migration.
    """
    lines = [
        line.rstrip() for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ]
    while lines and not lines[-1]:
        lines.pop()
    return "sha256:" + hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def read_source(path: Path) -> str:
    """
    Read a script as Python does: UTF-8 unless its first lines name another encoding, with or without a BOM.

    :raises OSError: if it cannot be read
    :raises SyntaxError: if the encoding is unknown
    :raises UnicodeDecodeError: if the bytes are not valid in that encoding
    """
    return decoded(path.read_bytes())


def decoded(raw: bytes) -> str:
    """Decode a script's bytes; errors as in :func:`read_source`."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding)
