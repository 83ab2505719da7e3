"""Record every command that arrives, and apply the faults that a test sets. No I/O of its own; any thread."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mydocs.localserver.control.faults import CommandOutcome, Cut, Fault, Hung, Predicate, Recorded
from mydocs.localserver.errors import CommandError

# Commands that drivers send on their own to connect, to monitor the server and to leave. `ping` is not among them:
# our drivers do not send it on their own, so it counts as a command of the client.
UNCOUNTED = frozenset({"hello", "isMaster", "ismaster", "saslStart", "saslContinue", "endSessions", "buildInfo"})

NOT_PRIMARY = 10107  # NotWritablePrimary, src/mongo/base/error_codes.yml


class Controls:
    """
    The record of all commands of a server, and the faults that a test sets.

    Every method that makes a fault takes the same options: ``at`` (the n-th matching command from now, 1 is the next),
    ``command`` (only commands of that name), ``when`` (only records that this function accepts) and ``times`` (how many
    consecutive matching commands it hits, ``None`` until `Fault.remove`). Without ``command`` and ``when`` a fault
    matches commands that count. It hits handshake and monitoring only if ``command`` names them.

    :param keep: number of records to keep; the oldest are removed first
    """

    def __init__(self, *, keep: int = 100_000) -> None:
        self._condition = threading.Condition()
        self._records: dict[int, Recorded] = {}
        self._order: deque[int] = deque()
        self._keep = keep
        self._counts: Counter[str] = Counter()
        self._arrived = 0
        self._numbered = 0
        self._faults: list[Fault] = []
        self._waiting: list[
            deque[Recorded]
        ] = []  # for each waiting thread, the new or changed records since its last look
        self._applications: dict[int, str] = {}
        self._election_until = 0.0
        self._down = False
        self._closed = threading.Event()
        self.cut_all: Callable[[], None] = lambda: None  # the server sets it to a function that closes all connections

    # -- called by the server

    def arrive(self, name: str, database: str, body: Mapping[str, Any], connection_id: int) -> Recorded:
        """Record a command before it is handled."""
        counts = name not in UNCOUNTED
        with self._condition:
            application = None if counts else _application(body)
            if application is not None:
                self._applications[connection_id] = application
            self._arrived += 1
            if counts:
                self._numbered += 1
                self._counts[name] += 1
            recorded = Recorded(
                number=self._numbered if counts else 0,
                sequence=self._arrived,
                name=name,
                database=database,
                body=body,
                connection_id=connection_id,
                application=self._applications.get(connection_id),
            )
            self._put(recorded)
        return recorded

    def before(self, recorded: Recorded) -> None:
        """
        Apply the faults before the execution of a command. This may take time.

        :raises CommandError: answer with it; the command is not executed
        :raises Cut: the command is not executed
        :raises Hung: the command is not executed
        """
        if self._down:
            self._settle(recorded, CommandOutcome.CUT)
            raise Cut
        self._run(recorded, after=False)
        if recorded.number and self.electing:
            self._settle(recorded, CommandOutcome.REFUSED)
            raise CommandError(NOT_PRIMARY, "not primary", labels=_election_labels(recorded.body))

    def after(self, recorded: Recorded, reply: Mapping[str, Any]) -> None:
        """
        Apply the faults between execution and answer. An error arrives here as a reply with ``ok`` 0.

        :raises Cut: the command was executed and is not answered
        :raises Hung: likewise
        """
        self._run(recorded, after=True)
        if self._down:
            self._settle(recorded, CommandOutcome.CUT)
            raise Cut
        self._settle(recorded, CommandOutcome.ANSWERED if reply.get("ok") else CommandOutcome.REFUSED)

    def gone(self, connection_id: int) -> None:
        """Forget a connection that has ended."""
        with self._condition:
            self._applications.pop(connection_id, None)

    def close(self) -> None:
        """End all delays, since the server stops."""
        self._closed.set()

    @property
    def is_down(self) -> bool:
        """Return whether connections are closed as soon as they are made."""
        return self._down

    @property
    def electing(self) -> bool:
        """Return whether there is no primary at the moment. The handshake must show it, too."""
        return time.monotonic() < self._election_until

    # -- the record

    def records(self) -> list[Recorded]:
        """Return all commands in the order of their arrival, each with its present outcome."""
        with self._condition:
            return [self._records[sequence] for sequence in self._order]

    def counted(self) -> list[Recorded]:
        """Return the commands that are not handshake, monitoring or the end of a connection."""
        return [recorded for recorded in self.records() if recorded.number]

    def counts(self) -> Counter[str]:
        """Return how many commands of each name have counted since the start or `clear`."""
        with self._condition:
            return Counter(self._counts)

    def clear(self) -> None:
        """Start a new record, with number 1. Faults stay."""
        with self._condition:
            self._records.clear()
            self._order.clear()
            self._counts.clear()
            self._numbered = 0

    def wait_for(self, predicate: Predicate, timeout: float = 10.0) -> Recorded:
        """
        Return the first record that ``predicate`` accepts, among existing and coming ones.

        It blocks its thread: in an event loop use ``anyio.to_thread.run_sync``.

        :param timeout: seconds
        :raises TimeoutError: if there is none in this time
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            news = deque(self._records[sequence] for sequence in self._order)
            self._waiting.append(news)
            try:
                while True:
                    while news:
                        recorded = news.popleft()
                        if predicate(recorded):
                            return recorded
                    rest = deadline - time.monotonic()
                    if rest <= 0:
                        raise TimeoutError(f"no such command within {timeout} s; seen: {dict(self._counts)}")
                    self._condition.wait(rest)
            finally:
                self._waiting.remove(news)

    # -- faults

    def cut_before(
        self, *, at: int = 1, command: str | None = None, when: Predicate | None = None, times: int | None = 1
    ) -> Fault:
        """Close the connection instead of executing the command."""
        return self._add(_cut, at, command, when, times)

    def cut_after(
        self, *, at: int = 1, command: str | None = None, when: Predicate | None = None, times: int | None = 1
    ) -> Fault:
        """Execute the command, then close the connection instead of answering."""
        return self._add(_cut, at, command, when, times, after=True)

    def hang(
        self,
        *,
        at: int = 1,
        command: str | None = None,
        when: Predicate | None = None,
        times: int | None = 1,
        after: bool = False,
    ) -> Fault:
        """
        Answer neither the command nor any later one on its connection. It stays open until the client ends it.

        Other connections work as before, so a driver's heartbeats are answered. The outcome of the record is
        ``CommandOutcome.HUNG``.

        :param after: execute the command first; otherwise it is not executed
        """
        return self._add(_hang, at, command, when, times, after=after)

    def error(
        self,
        code: int,
        message: str,
        labels: Sequence[str] = (),
        *,
        at: int = 1,
        command: str | None = None,
        when: Predicate | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Answer with an error instead of executing the command."""

        def refuse(recorded: Recorded) -> None:
            raise CommandError(code, message, labels=labels)

        return self._add(refuse, at, command, when, times)

    def delay(
        self,
        delay: float | threading.Event,
        *,
        at: int = 1,
        command: str | None = None,
        when: Predicate | None = None,
        times: int | None = 1,
        after: bool = False,
    ) -> Fault:
        """Wait before (or after) the execution: the given real seconds, or until the event is set."""

        def pause(recorded: Recorded) -> None:
            if isinstance(delay, threading.Event):
                # Short waits, so that a stopping server does not wait for an event that is never set.
                while not delay.wait(0.02) and not self._closed.is_set():
                    pass
            else:
                self._closed.wait(delay)

        return self._add(pause, at, command, when, times, after=after)

    def call(
        self,
        function: Callable[[Recorded], object],
        *,
        at: int = 1,
        command: str | None = None,
        when: Predicate | None = None,
        times: int | None = 1,
        after: bool = False,
    ) -> Fault:
        """Call a function with the record before (or after) the execution, in the connection's thread."""

        def run(recorded: Recorded) -> None:
            function(recorded)

        return self._add(run, at, command, when, times, after=after)

    def clear_faults(self) -> None:
        """Remove all faults, end an election, and accept connections again."""
        with self._condition:
            self._faults.clear()
        self.end_election()
        self.up()

    def down(self) -> None:
        """Be unreachable until `up`: cut all connections, and close new ones at once."""
        self._down = True
        self.cut_all()

    def up(self) -> None:
        """Accept connections again."""
        self._down = False

    def election(self, seconds: float = float("inf")) -> None:
        """Have no primary for the given real seconds, or until `end_election`: refuse every command with 10107."""
        self._election_until = time.monotonic() + seconds

    def end_election(self) -> None:
        """Have a primary again."""
        self._election_until = 0.0

    # -- inside

    def _add(
        self,
        act: Callable[[Recorded], None],
        at: int,
        command: str | None,
        when: Predicate | None,
        times: int | None,
        *,
        after: bool = False,
    ) -> Fault:
        if at < 1:
            raise ValueError(f"the next command is number 1, so there is no {at}")

        def matches(recorded: Recorded) -> bool:
            named = recorded.name == command if command is not None else recorded.number > 0
            return named and (when is None or when(recorded))

        fault = Fault(act, matches, after, at - 1, times)
        with self._condition:
            self._faults.append(fault)
        return fault

    def _run(self, recorded: Recorded, *, after: bool) -> None:
        with self._condition:
            hits = [fault for fault in self._faults if fault.after is after and fault.take(recorded)]
        try:
            for fault in hits:
                fault.act(recorded)
        except Cut:
            self._settle(recorded, CommandOutcome.CUT)
            raise
        except Hung:
            self._settle(recorded, CommandOutcome.HUNG)
            raise
        except CommandError:
            self._settle(recorded, CommandOutcome.REFUSED)
            raise

    def _settle(self, recorded: Recorded, outcome: CommandOutcome) -> None:
        with self._condition:
            if recorded.sequence in self._records:
                self._show(replace(recorded, outcome=outcome))

    def _put(self, recorded: Recorded) -> None:
        self._order.append(recorded.sequence)
        self._show(recorded)
        while len(self._order) > self._keep:
            del self._records[self._order.popleft()]

    def _show(self, recorded: Recorded) -> None:
        self._records[recorded.sequence] = recorded
        for news in self._waiting:
            news.append(recorded)
        self._condition.notify_all()


def _application(body: Mapping[str, Any]) -> str | None:
    value: Any = body
    for name in ("client", "application", "name"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def _cut(recorded: Recorded) -> None:
    raise Cut


def _hang(recorded: Recorded) -> None:
    raise Hung


def _election_labels(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the error labels that the server adds. Drivers retry by these labels, not by the code."""
    if body.get("autocommit") is False:
        return ("TransientTransactionError",)
    return ("RetryableWriteError",) if "txnNumber" in body else ()
