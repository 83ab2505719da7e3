"""Provide ready-made sinks: events as log records, and one event for several sinks. No I/O except by ``logging``."""

import logging

from mydocs.migrations.reporting.events import Event, Sink, emit

LOGGER = "mydocs.migrations"


def logging_sink(event: Event) -> None:
    """
    Log an event as one record of the logger ``mydocs.migrations``. This is the default sink.

    The message is a sentence. The event itself is the record's attribute ``event``, for handlers that write fields.
    If logging is not configured, nothing is written, not even a warning.
    """
    logger = logging.getLogger(LOGGER)
    if logger.isEnabledFor(event.level):
        logger.log(event.level, "%s [%s]: %s", event.database, event.run_id, event.sentence, extra={"event": event})


def fan_out(*sinks: Sink) -> Sink:
    """Return one sink that passes each event to several. If one of them raises, the others still receive the event."""

    def take(event: Event) -> None:
        for sink in sinks:
            emit(sink, event)

    return take
