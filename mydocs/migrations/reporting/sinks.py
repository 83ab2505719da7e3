"""Ready-made sinks: events as log records, and one event for several sinks. No I/O but that of ``logging``."""

import logging
from dataclasses import fields

from mydocs.migrations.errors import describe_holder
from mydocs.migrations.model import IndexState, MigrationState
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    LeaseWaiting,
    Planned,
    Sink,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
    emit,
)
from mydocs.migrations.reporting.report import RunFinished

LOGGER = "mydocs.migrations"

# What an operator wants to read is INFO, what he must read WARNING; the rest is there for whoever looks for a fault.
_INFO = (StepStarted, StepFinished, IndexChanged, LeaseWaiting, StillWaiting, RunFinished)


def logging_sink(event: Event) -> None:
    """
    Log an event as one record of the logger ``mydocs.migrations``; what takes events where a caller names no sink.

    The message is a sentence. The event itself is the record's attribute ``event``, for handlers that write fields.
    Where nobody has set logging up, nothing is written, not even a warning.
    """
    logger = logging.getLogger(LOGGER)
    level = level_of(event)
    if logger.isEnabledFor(level):
        logger.log(level, "%s [%s]: %s", event.database, event.run_id, sentence(event), extra={"event": event})


def fan_out(*sinks: Sink) -> Sink:
    """Make one sink that hands each event to several; one that raises is logged and keeps it from no other."""

    def take(event: Event) -> None:
        for sink in sinks:
            emit(sink, event)

    return take


def level_of(event: Event) -> int:
    """Say how much an event matters, in the levels of ``logging``."""
    match event:
        case Warned():
            return logging.WARNING
        case StepFinished(state=MigrationState.FAILED) | IndexChanged(state=IndexState.FAILED):
            return logging.WARNING
        case Planned():
            return logging.INFO if event.versions or event.standard else logging.DEBUG
        case _:
            return logging.INFO if isinstance(event, _INFO) else logging.DEBUG


def sentence(event: Event) -> str:
    """Say in one line what has happened."""
    match event:
        case Planned():
            steps = [*(["standard indexes"] if event.standard else []), *event.versions]
            return f"{event.direction}: {', '.join(steps) or 'nothing'} to run"
        case Warned():
            return event.message
        case LeaseWaiting():
            return f"waiting for the lease: {describe_holder(event.holder)}"
        case StepStarted():
            return f"{event.version} {event.name}: {event.direction} starts"
        case StepFinished():
            problem = f": {event.error.type}: {event.error.message}" if event.error else ""
            return f"{event.version} {event.name}: {event.state.value} after {event.seconds:.2f} s{problem}"
        case BatchDone():
            return f"{event.collection}: {event.done} of {event.total} documents after {event.seconds:.1f} s"
        case IndexChanged():
            reason = f" ({event.reason})" if event.reason else ""
            return f"index {event.collection}.{event.name}: {event.state.value} after {event.seconds:.1f} s{reason}"
        case StillWaiting():
            return f"still waiting after {event.seconds:.0f} s: {', '.join(event.what)}"
        case RunFinished():
            error = event.report.error
            problem = f": {error.type}: {error.message}" if error else ""
            return f"ended after {event.report.seconds:.2f} s, {event.report.outcome.value}{problem}"
        case _:
            return _facts(event)


def _facts(event: Event) -> str:
    own = {field.name for field in fields(Event)}
    facts = [f"{field.name}={getattr(event, field.name)}" for field in fields(event) if field.name not in own]
    return f"{type(event).__name__} {' '.join(facts)}"
