"""Ready-made sinks: events as log records, and one event for several sinks. No I/O but that of ``logging``."""

import logging

from mydocs.migrations.reporting.events import Event, Sink, emit

LOGGER = "mydocs.migrations"


def logging_sink(event: Event) -> None:
    """
    Log an event as one record of the logger ``mydocs.migrations``; what takes events where a caller names no sink.

    The message is a sentence. The event itself is the record's attribute ``event``, for handlers that write fields.
    Where nobody has set logging up, nothing is written, not even a warning.
    """
    logger = logging.getLogger(LOGGER)
    if logger.isEnabledFor(event.level):
        logger.log(event.level, "%s [%s]: %s", event.database, event.run_id, event.sentence, extra={"event": event})


def fan_out(*sinks: Sink) -> Sink:
    """Make one sink that hands each event to several; one that raises is logged and keeps it from no other."""

    def take(event: Event) -> None:
        for sink in sinks:
            emit(sink, event)

    return take
