"""Write a report as one self-contained HTML page: what ran, how long, and what the run waited for. Pure."""

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import mydocs
from mydocs.cli.html_style import STYLE
from mydocs.cli.render import NOT_RIGHT, VERIFIED, state_text
from mydocs.cli.timeline import Kind, Recorder, Span, waited_for
from mydocs.migrations.model import STANDARD_VERSION, IndexState, MigrationState
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.reporting.escaping import visible
from mydocs.migrations.reporting.report import Outcome, RunReport

OUTCOMES = {
    Outcome.OK: "✓ done",
    Outcome.PLANNED: "planned, nothing was run",
    Outcome.FAILED: "✗ failed",
    Outcome.NOT_READY: "✗ not ready in time",
    Outcome.INTERRUPTED: "✗ interrupted",
    Outcome.UNVERIFIED: "✗ ready, but not right",
}
GOOD = (MigrationState.APPLIED.value, IndexState.READY.value, VERIFIED)
BAD = (MigrationState.FAILED.value, MigrationState.INTERRUPTED.value, NOT_RIGHT)
BREAKS = re.compile(r"(?<=[A-Za-z0-9])[_.](?=[A-Za-z0-9])")
COLOURS = 6  # of the style; neighbours differ
MOST_NAMED = 12  # longest waits that are listed by name
TICKS = 6  # on the axis, approximately
SMALL = 0.01  # of the run; shorter steps are summed up

Text = Callable[[str], str]


def document(report: RunReport, recorder: Recorder, *, command: str, clean: Text) -> str:
    """
    Write a report as a page.

    :param recorder: the times of the events; it is finished
    :param clean: removes credentials from a text
    """

    def text(value: str) -> str:
        # Cleaned before it is escaped, since a credential may contain characters that are escaped.
        return html.escape(visible(clean(value)))

    def named(value: str) -> str:
        # A long name may be broken between its words.
        return BREAKS.sub(r"\g<0><wbr>", text(value))

    # The time of the call itself, as the command shows it. The recorder started before the server was reached.
    lasted = report.seconds or recorder.seconds
    spans = tuple(shifted(span, max(0.0, recorder.seconds - lasted)) for span in recorder.spans)
    seconds, held = max(lasted, 0.001), waited_for(spans, lasted)
    title = f"mydocs migrate {command}" + (f" on {report.database}" if report.database else "")
    began = recorder.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [
        f'<h1>{text(title)} <span class="badge{_bad(report)}">{OUTCOMES[report.outcome]}</span></h1>',
        f'<p class="meta">began {began}, took {seconds_text(lasted)}; mydocs {mydocs.__version__}</p>',
        *_tiles(report),
        f'<p class="told">{named(told(report, spans, held, lasted))}</p>',
        *_failures(report, named),
        *_warnings(recorder.warnings, named),
        *_strip(held, seconds, named),
        *_timeline(spans, held, seconds, named),
        *_migrations(report, named),
        *_indexes(report, named),
        *_aliases(report, text),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def told(report: RunReport, spans: Sequence[Span], held: Sequence[Span], seconds: float) -> str:
    """Return a sentence about where the time went."""
    if report.outcome is Outcome.PLANNED:
        return f"{len(report.migrations)} to run."
    if not spans:
        return "There was nothing to do." if report.error is None else "It ended before anything was run."
    parts = []
    for kind, said in ((Kind.OTHERS, "waiting for others"), (Kind.STEP, "running scripts")):
        if lasted := sum(span.until(seconds) - span.start for span in held if span.kind is kind):
            parts.append(f"{seconds_text(lasted)} {said}")
    for span in held:
        if span.kind is Kind.INDEX:
            waited = [other for other in spans if other.kind is Kind.INDEX]
            last = f", the last of {len(waited)} to end" if len(waited) > 1 else ""
            parts.append(f"{seconds_text(span.until(seconds) - span.start)} waiting for {span.title}{last}")
    unwatched = sum(span.kind is Kind.INDEX and not span.looks for span in spans)
    tail = f" {unwatched} search index builds continue; the run did not wait for them." if unwatched else ""
    return f"Of {seconds_text(seconds)}: {'; '.join(parts) or 'nothing of note'}.{tail}"


def _tiles(report: RunReport) -> Iterable[str]:
    """Yield the results as numbers."""
    states = Counter(m.state.value for m in report.migrations if m.version != STANDARD_VERSION)
    indexes = Counter(index.state.value for index in report.indexes)
    ready = indexes.pop(IndexState.READY.value, 0)
    wrong = sum(m.verified is False for m in report.migrations)
    would = "to run" if report.outcome is Outcome.PLANNED else "not run"
    tiles = [
        *((count, would if state == "pending" else state, state in BAD) for state, count in states.items()),
        *([(wrong, "not right", True)] if wrong else []),
        *([(ready, "indexes ready" if ready != 1 else "index ready", False)] if ready else []),
        *((count, f"index{'es' if count > 1 else ''} {state}", state in BAD) for state, count in indexes.items()),
    ]
    if tiles:
        yield '<ul class="tiles">'
        for count, what, bad in tiles:
            yield f"<li{' class=bad' if bad else ''}><b>{count}</b> {html.escape(what)}</li>"
        yield "</ul>"


def shifted(span: Span, lead: float) -> Span:
    """Return a span with times relative to a later moment."""
    looks = tuple((max(0.0, at - lead), state) for at, state in span.looks)
    end = None if span.end is None else max(0.0, span.end - lead)
    return replace(span, start=max(0.0, span.start - lead), end=end, looks=looks)


def _failures(report: RunReport, text: Text) -> Iterable[str]:
    failures = [
        *((f"{m.script or m.name}: {m.error.type}", m.error.message) for m in report.migrations if m.error),
        *(
            (f"index {i.collection}.{i.name}: {i.state.value}", i.reason or "no reason given")
            for i in report.indexes
            if i.state is IndexState.FAILED
        ),
    ]
    if report.error is not None:
        # Failures that the error already contains are not repeated.
        failures = [(head, body) for head, body in failures if body not in report.error.message]
        said = "\n".join(report.error.lines) or report.error.message
        failures.insert(0, (f"{report.error.type}, exit code {report.error.exit_code}", said))
    for head, body in failures:
        lines = "\n".join(text(line) for line in body.split("\n"))
        yield f'<div class="failure"><b>{text(head)}</b><pre>{lines}</pre></div>'


def _warnings(warnings: Sequence[str], text: Text) -> Iterable[str]:
    return (f'<p class="note">warning: {text(warning)}</p>' for warning in dict.fromkeys(warnings))


def _strip(held: Sequence[Span], seconds: float, text: Text) -> Iterable[str]:
    if not held:
        return
    yield "<h2>What the run waited for</h2>"
    lasted = [(span, span.until(seconds) - span.start) for span in held]
    pieces = "".join(
        f'<span class="{_colour(span, held)}" style="flex: {max(0.001, took / seconds):.4f}" '
        f'title="{span.title and text(span.title).replace("<wbr>", "")}: {seconds_text(took)}"></span>'
        for span, took in lasted
    )
    yield f'<div class="strip">{pieces}</div>'
    # The longest by name, in their order. All short ones are one line, which would otherwise hide the rest.
    steps = sorted((s for s in lasted if s[0].kind is not Kind.REST), key=lambda step: -step[1])
    named = [step for step in steps[:MOST_NAMED] if step[1] >= seconds * SMALL]
    named += [step for step in steps if step[0].state in BAD and step not in named]
    others = [step for step in steps if step not in named]
    yield '<ul class="key">'
    for span, took in (step for step in lasted if step in named):
        mark = f'<i class="{_colour(span, held)}"></i>'
        yield f"<li>{mark}<span>{text(span.title)}</span><b>{_share(took, seconds)}</b></li>"
    if others:
        took = sum(took for _, took in others)
        yield f'<li><i class="rest"></i><span>{len(others)} shorter steps</span><b>{_share(took, seconds)}</b></li>'
    rest = sum(took for span, took in lasted if span.kind is Kind.REST)
    if rest > 0:
        yield f'<li><i class="rest"></i><span>everything else</span><b>{_share(rest, seconds)}</b></li>'
    yield "</ul>"


def _colour(span: Span, held: Sequence[Span]) -> str:
    """Return the colour class of a span. Steps get colours in turn, for the legend."""
    if span.kind is not Kind.STEP:
        return span.kind.value
    titles = list(dict.fromkeys(other.title for other in held if other.kind is Kind.STEP))
    return f"step step-{titles.index(span.title) % COLOURS}" if span.title in titles else "step"


def _share(took: float, seconds: float) -> str:
    return f"{seconds_text(took)}, {took / seconds:.0%}"


def _timeline(spans: Sequence[Span], held: Sequence[Span], seconds: float, text: Text) -> Iterable[str]:
    if not spans:
        return
    yield "<h2>Time line</h2>"
    yield '<p class="note">Solid: the run waited for it. Pale: it went on beside something else.</p><div class="rows">'
    marks = ticks(seconds)
    lines = "".join(f'<i class="tick" style="left: {mark / seconds:.2%}"></i>' for mark in marks)
    for span in spans:
        end = span.until(seconds)
        solid = [part for part in held if part.kind is span.kind and part.title == span.title]
        failed = span.state in BAD
        row = f"row{' held' if solid else ''}{' failed' if failed else ''}{' open' if span.end is None else ''}"
        colour = _colour(span, held)
        bars = _bar(colour, span.start, end, seconds) + "".join(
            _bar(colour, part.start, part.until(seconds), seconds, solid=True) for part in solid
        )
        sign = "✗ " if failed else ""
        more = f"{sign}{span.state}" + (f": {span.text}" if span.text else "")
        took = seconds_text(end - span.start) if span.end is not None else "goes on"
        yield (
            f'<div class="{row}"><div class="name">{text(span.title)}<small>{text(more)}</small></div>'
            f'<div class="track">{lines}{bars}</div><div class="took">{took}</div></div>'
        )
    labels = "".join(
        f'<span style="left: {mark / seconds:.2%}">{seconds_text(mark)}</span>' for mark in (0.0, *marks[:-1], seconds)
    )
    yield f'<div class="row axis"><div class="name"></div><div class="track">{labels}</div><div></div></div></div>'


def _bar(colour: str, start: float, end: float, seconds: float, *, solid: bool = False) -> str:
    place = f"left: {start / seconds:.2%}; width: {max(0.0, end - start) / seconds:.2%}"
    return f'<div class="bar {colour}{" solid" if solid else ""}" style="{place}"></div>'


def ticks(seconds: float) -> tuple[float, ...]:
    """Return round moments for an axis, about six of them."""
    rough = seconds / TICKS
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough)
    return tuple(round(step * number, 6) for number in range(1, math.ceil(seconds / step)))


def _migrations(report: RunReport, text: Text) -> Iterable[str]:
    rows = [(m.version, m.name, state_text(m), seconds_text(m.seconds), m.script or "") for m in report.migrations]
    return _table("Migrations", ("Version", "Name", "State", "Time", "File"), rows, text)


def _indexes(report: RunReport, text: Text) -> Iterable[str]:
    rows = [
        (f"{i.collection}.{i.name}", i.type.value, i.state.value, seconds_text(i.seconds), i.reason or "")
        for i in report.indexes
    ]
    return _table("Indexes", ("Index", "Type", "State", "Time", "Reason"), rows, text)


def _aliases(report: RunReport, text: Text) -> Iterable[str]:
    rows = [(alias.alias, f"{alias.collection}.{alias.index}", alias.previous or "") for alias in report.aliases or ()]
    return _table("Search aliases", ("Alias", "Index", "Before"), rows, text)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], text: Text) -> Iterable[str]:
    used = [index for index in range(len(head)) if any(row[index] for row in rows)]
    if not used:
        return
    head, rows = [head[index] for index in used], [[row[index] for index in used] for row in rows]
    yield f'<h2>{title}</h2><div class="scroll"><table><tr>'
    yield "".join(f"<th>{name}</th>" for name in head) + "</tr>"
    for row in rows:
        cells = zip(head, row, strict=True)
        yield "<tr>" + "".join(_cell(name, cell, text) for name, cell in cells) + "</tr>"
    yield "</table></div>"


def _cell(column: str, value: str, text: Text) -> str:
    if not value:
        return "<td></td>"
    kind = _class(column, value)
    # What has a class is ours and short: it is not broken.
    return f'<td data-head="{column}"{kind}>{html.escape(value) if kind else text(value)}</td>'


def _class(column: str, cell: str) -> str:
    if column == "Time":
        return ' class="number"'
    if column == "State" and cell in (*GOOD, *BAD):
        return ' class="good"' if cell in GOOD else ' class="bad"'
    return ""


def _bad(report: RunReport) -> str:
    return "" if report.outcome in (Outcome.OK, Outcome.PLANNED) else " bad"
