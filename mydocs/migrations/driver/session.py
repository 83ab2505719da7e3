"""What a call hands on to all that it does: the database, its own id, and where its events go. No I/O."""

from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.events import Event, Sink, Warned, emit
from mydocs.migrations.values import value


@value
class Session:
    """
    One call on one database.

    :param run_id: what the call signs lease, ledger entries and events with; new for each call
    """

    db: Database
    run_id: str
    sink: Sink

    def emit(self, event: Event) -> None:
        """Tell the caller what has happened; a sink that raises stops nothing."""
        emit(self.sink, event)

    def warn(self, message: str) -> None:
        """Tell the caller what an operator should know and what stops nothing."""
        self.emit(Warned(message=message))
