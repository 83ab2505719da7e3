"""Make a sink that posts to a web address how a call has ended. I/O: one POST for each call, on a thread of its own."""

import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from mydocs.migrations.reporting.events import Event, Sink
from mydocs.migrations.reporting.report import Outcome, RunFinished, to_json

logger = logging.getLogger(__name__)

GOOD = (Outcome.OK, Outcome.PLANNED)


def webhook_sink(
    url: str, *, headers: Mapping[str, str] | None = None, only_failures: bool = False, timeout: float = 10.0
) -> Sink:
    """
    Return a sink that posts JSON when a call has ended: ``text``, a sentence, and ``report``, as of ``--output json``.

    It delays nothing and fails nothing. The result of the POST is only logged, without the address, which may contain
    a token.

    :param headers: more headers, such as an authorisation
    :param only_failures: post nothing if the call ended well
    :param timeout: seconds for the connection and for each answer; the process waits for it at its end
    :raises ValueError: if the address is not one of http or https
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("a webhook needs an address that begins with http:// or https://")

    def take(event: Event) -> None:
        if isinstance(event, RunFinished) and not (only_failures and event.report.outcome in GOOD):
            body = {
                "text": f"mydocs migrations of {event.database}: {event.sentence}",
                "database": event.database,
                "run_id": event.run_id,
                "report": to_json(event.report),
            }
            request = urllib.request.Request(  # the scheme was checked
                url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}, method="POST"
            )
            threading.Thread(target=_post, args=(request, timeout), name="mydocs-webhook").start()

    return take


def _post(request: urllib.request.Request, timeout: float) -> None:
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # the scheme was checked
            pass
    except Exception as error:  # noqa: BLE001  # the run does not fail if its report does not arrive
        logger.warning("the webhook was not reached: %s", getattr(error, "reason", None) or type(error).__name__)
