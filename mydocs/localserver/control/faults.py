"""Define the record of one command, and the faults that a test sets. Pure, except for a fault's own action."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cut(Exception):
    """The connection ends here, without an answer."""


class Hung(Exception):
    """The connection stays open, and nothing on it is answered any more."""


class CommandOutcome(StrEnum):
    """The outcome of a command."""

    PENDING = "pending"  # not answered yet
    ANSWERED = "answered"
    REFUSED = "refused"  # answered with an error
    CUT = "cut"  # not answered; whether it was executed depends on the fault
    HUNG = "hung"  # like CUT, but the connection stays open


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """
    One command as it arrived. A later record of the same ``sequence`` shows its outcome.

    :param number: from 1, over the commands that count; 0 for handshake, monitoring and end of a connection
    :param sequence: from 1, over all commands
    """

    number: int
    sequence: int
    name: str
    database: str
    body: Mapping[str, Any]
    connection_id: int
    application: str | None
    outcome: CommandOutcome = CommandOutcome.PENDING


Predicate = Callable[[Recorded], bool]


@dataclass(eq=False, slots=True)
class Fault:
    """A fault for future commands; the methods of `Controls` make it."""

    act: Callable[[Recorded], None]
    matches: Predicate
    after: bool
    skip: int
    times: int | None
    fired: int = 0
    removed: bool = False

    def remove(self) -> None:
        """End the fault."""
        self.removed = True

    def take(self, recorded: Recorded) -> bool:
        """Return whether the fault hits this command, and count the command."""
        if self.removed or (self.times is not None and self.fired >= self.times) or not self.matches(recorded):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.fired += 1
        return True
