"""Define what a call passes on to all its parts: the database, its own id, and the sink of its events. No I/O."""

from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.events import Event, Sink, Warned, emit
from mydocs.migrations.values import value


@value
class Session:
    """
    One call on one database.

    :param run_id: identifies the call in lease, ledger entries and events; new for each call
    """

    db: Database
    run_id: str
    sink: Sink

    def emit(self, event: Event) -> None:
        """Pass an event to the caller. A sink that raises stops nothing."""
        emit(self.sink, event)

    def warn(self, message: str) -> None:
        """Warn the caller about a fact that an operator should know and that stops nothing."""
        self.emit(Warned(message=message))
