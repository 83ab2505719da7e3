"""Check a password by SCRAM-SHA-256 (RFC 7677), as the server. No I/O."""

import base64
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass

from mydocs.localserver.errors import CommandError

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 15_000  # rounds; the number that MongoDB servers use for this mechanism


def _failed() -> CommandError:
    # The same message for every reason, so that an answer does not tell a wrong user from a wrong password.
    return CommandError(18, "Authentication failed.")


@dataclass(frozen=True)
class Credentials:
    """The one user of a server. Only values derived from the password are kept."""

    user: str
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, user: str, password: str) -> "Credentials":
        salt = secrets.token_bytes(28)  # bytes; MongoDB's length for SHA-256
        # SASLprep, as far as it matters for typed passwords: compatibility forms are normalised.
        prepared = unicodedata.normalize("NFKC", password).encode()
        salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        return cls(user, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


@dataclass
class Conversation:
    """
    One login: the client's first message, its proof, and an empty third one.

    :param short: the client asked to leave out the third message
    """

    credentials: Credentials
    short: bool = False
    done: bool = False
    _step: int = 0
    _known: bool = False
    _first: str = ""
    _nonce: str = ""
    _challenge: str = ""

    def answer(self, payload: bytes) -> bytes:
        """
        Return the server's next message.

        :raises CommandError: code 18 if the proof, the user or the message is wrong
        """
        self._step += 1
        try:
            if self._step == 1:
                return self._challenge_for(payload.decode())
            if self._step == 2:
                return self._verify(payload.decode())
        except (ValueError, KeyError) as error:
            raise _failed() from error
        if self._step == 3 and not payload:
            self.done = True
            return b""
        raise _failed()

    def _challenge_for(self, message: str) -> bytes:
        header, _, bare = message.partition(",,")
        fields = _fields(bare)
        if header not in ("n", "y"):
            raise _failed()
        self._first = bare
        self._nonce = fields["r"] + base64.b64encode(secrets.token_bytes(24)).decode()
        salt = base64.b64encode(self.credentials.salt).decode()
        self._challenge = f"r={self._nonce},s={salt},i={ITERATIONS}"
        # An unknown user gets a challenge like a known one, and fails at the proof.
        self._known = fields["n"].replace("=2C", ",").replace("=3D", "=") == self.credentials.user
        return self._challenge.encode()

    def _verify(self, message: str) -> bytes:
        fields = _fields(message)
        without_proof = message[: message.rindex(",p=")]
        signed = f"{self._first},{self._challenge},{without_proof}".encode()
        signature = hmac.digest(self.credentials.stored_key, signed, "sha256")
        proof = base64.b64decode(fields["p"])
        if len(proof) != len(signature) or fields["r"] != self._nonce:
            raise _failed()
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        right = hmac.compare_digest(hashlib.sha256(client_key).digest(), self.credentials.stored_key)
        if not (right and self._known):
            raise _failed()
        self.done = self.short
        return b"v=" + base64.b64encode(hmac.digest(self.credentials.server_key, signed, "sha256"))


def _fields(message: str) -> dict[str, str]:
    parts = (part.partition("=") for part in message.split(","))
    return {name: value for name, _, value in parts}
