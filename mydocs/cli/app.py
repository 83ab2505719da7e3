"""
Define the commands: each parses, makes one call of an operation, and renders. I/O.

Modules that import a driver are imported inside the functions: the names of `mydocs.migrations` at their first use, the
others explicitly.
"""

from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mydocs
from mydocs import migrations
from mydocs.cli import calls, results
from mydocs.cli.errors import EXIT_CODES
from mydocs.cli.light import LightCommand, LightGroup
from mydocs.cli.options import Common, keep_common, say_help, with_common, with_common_but_no_database
from mydocs.cli.program import Program
from mydocs.cli.streams import Output, current
from mydocs.migrations.operations.files import TemplateKind

if TYPE_CHECKING:
    from mydocs.cli.calls import Shared
    from mydocs.migrations.model import LeaseView
    from mydocs.migrations.operations.connection import Database
    from mydocs.migrations.operations.pull import PullReport
    from mydocs.migrations.operations.settle import Repair
    from mydocs.migrations.reporting.plan_report import PlanReport
    from mydocs.migrations.reporting.report import RunReport

app = typer.Typer(
    name="mydocs",
    cls=Program,
    help="The command line of mydocs.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
migrate_app = typer.Typer(
    help="Bring a MongoDB database to the state that the code needs.",
    epilog="Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + ".",
    rich_markup_mode=None,
)
local_app = typer.Typer(help="The local server, for development and tests.", rich_markup_mode=None)
app.add_typer(migrate_app, name="migrate", cls=LightGroup, callback=keep_common, invoke_without_command=True)
app.add_typer(local_app, name="local")

Timeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="Limit of the wait, such as 90s; 0 is none.")
]
LockTimeout = Annotated[
    str, typer.Option("--lock-timeout", metavar="DURATION", help="How long to wait for the lease; 0 is one try.")
]
Indexes = Annotated[
    str | None,
    typer.Option(
        "--indexes",
        metavar="MODULE:NAME",
        help="Standard indexes, or none. Else standard_indexes of [tool.mydocs] in pyproject.toml.",
        show_default=False,
    ),
]
WaitTimeout = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="DURATION", help="Limit of --wait, such as 90s (1h); 0 is none.", show_default=False
    ),
]
ScriptTimeout = Annotated[
    str, typer.Option("--script-timeout", metavar="DURATION", help="Limit of each script, such as 10m; 0 is none.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="End only when every search index can be queried.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Also write a report: .html is a page, .xml is JUnit."),
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """The command line of mydocs, a document-processing application on MongoDB Atlas."""
    if version:
        current().result(f"mydocs {mydocs.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        say_help(context)


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate run --wait --timeout 30m --report run.html")
@with_common
def run(
    common: Common,
    wait: Wait = False,
    timeout: WaitTimeout = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="The last version to run; all without it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; change nothing.")] = False,
    lock_timeout: LockTimeout = "10m",
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Go on although applied scripts were edited.")
    ] = False,
    allow_out_of_order: Annotated[
        bool, typer.Option("--allow-out-of-order", help="Run pending versions below the highest applied one.")
    ] = False,
    max_building: Annotated[
        int | None,
        typer.Option(
            "--max-building",
            metavar="N",
            min=1,
            help="How many search indexes may be building at a time; the others follow as these become ready.",
            show_default=False,
        ),
    ] = None,
    indexes: Indexes = None,
    script_timeout: ScriptTimeout = "0",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Share what `transform` does among N processes of this machine.",
            show_default=False,
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask", metavar="ADDRESS", help="Share it among the workers of a Dask scheduler, tcp://HOST:PORT."
        ),
    ] = None,
    max_lag: Annotated[
        str,
        typer.Option(
            "--max-lag",
            metavar="DURATION",
            help="Let data changes wait while a secondary is further behind; 0 is no limit.",
        ),
    ] = "0",
    report: ReportFile = None,
) -> None:
    """Run what is pending, and with --wait end when every search index can be queried."""
    limit, lock_limit = calls.wait_limit(wait, timeout), calls.duration(lock_timeout, "--lock-timeout")
    script_limit, lag_limit = calls.limit(script_timeout, "--script-timeout"), calls.limit(max_lag, "--max-lag")
    file, models = calls.report_file(report, "run"), calls.standard_indexes(indexes)
    from mydocs.cli.render import run_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        if dry_run:
            from mydocs.migrations.operations.migrate import dry_run as preview

            return preview(
                db,
                target=to,
                allow_changed=allow_changed,
                allow_out_of_order=allow_out_of_order,
                standard_indexes=models,
                **shared,
            )
        return migrations.migrate(
            db,
            wait=wait,
            timeout=limit,
            target=to,
            lock_timeout=lock_limit,
            allow_changed=allow_changed,
            allow_out_of_order=allow_out_of_order,
            standard_indexes=models,
            script_timeout=script_limit,
            executor=executor,
            max_lag=lag_limit,
            max_building=max_building,
            **shared,
        )

    with calls.engine(workers, dask) as executor:
        results.show(calls.report(common, operation, run_text, file=file))


@migrate_app.command(cls=LightCommand, epilog="Example, for a pull request: mydocs migrate plan --output json")
@with_common
def plan(
    common: Common,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="The last version to try; all without it.")
    ] = None,
    sample: Annotated[
        str, typer.Option("--sample", metavar="N", help="Documents of each collection that the copy gets.")
    ] = "100",
    show: Annotated[
        str, typer.Option("--show", metavar="N", help="Documents before and after to show for each effect.")
    ] = "0",
    script_timeout: Annotated[
        str, typer.Option("--script-timeout", metavar="DURATION", help="Limit of one script; 0 is none.")
    ] = "1m",
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Go on although applied scripts were edited.")
    ] = False,
    allow_out_of_order: Annotated[
        bool, typer.Option("--allow-out-of-order", help="Try pending versions below the highest applied one.")
    ] = False,
    indexes: Indexes = None,
) -> None:
    """Show what a run would do, by trying the scripts on a copy; change nothing."""
    limit, models = calls.limit(script_timeout, "--script-timeout"), calls.standard_indexes(indexes)
    most, shown = calls.whole_number(sample, "--sample"), calls.whole_number(show, "--show")
    from mydocs.cli.plan_text import ALARM, as_run_report, plan_error, plan_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[PlanReport]":
        return migrations.plan(
            db,
            target=to,
            sample=most,
            show=shown,
            script_timeout=limit,
            allow_changed=allow_changed,
            allow_out_of_order=allow_out_of_order,
            standard_indexes=models,
            **shared,
        )

    streams = current()
    found = calls.call(common, operation)
    streams.render, streams.alarm = plan_text, ALARM
    report, error = as_run_report(found), plan_error(found)
    if error is not None:
        error.report = report
        raise error
    results.show(report)


@migrate_app.command("list", cls=LightCommand, epilog="Example: mydocs migrate list --output json")
@with_common_but_no_database
def list_(common: Common) -> None:
    """Show the scripts on disk; needs no database."""
    from mydocs.migrations.operations.files import scripts_of

    streams = current()
    found = scripts_of(calls.directory(common))
    for warning in found.warnings:
        streams.note(warning, "warning")
    if streams.output is Output.TABLE:
        rows = [(s.version, s.name, s.kind.value, "yes" if s.reversible else "no") for s in found.scripts]
        from mydocs.cli.tables import table

        with results.fitted_to(streams):
            streams.result(table(("VERSION", "NAME", "KIND", "REVERSIBLE"), rows) or "no scripts")
        return
    listed = [
        {
            "version": script.version,
            "name": script.name,
            "script": script.file_name,
            "state": None,  # only the ledger has it
            "seconds": None,
            "error": None,
            "kind": script.kind.value,
            "reversible": script.reversible,
            "checksum": script.checksum,
        }
        for script in found.scripts
    ]
    results.show_document({"migrations": listed})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate status --exit-code")
@with_common
def status(
    common: Common,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 8 if anything is left to do.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Also show every attempt, oldest first.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Show only what is left to do.")] = False,
    indexes: Indexes = None,
) -> None:
    """Show every migration and every tracked index with its state."""
    from mydocs.cli.render import only_left, pending_text, status_text

    models = calls.standard_indexes(indexes)

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.status(db, history=history, standard_indexes=models, **shared)

    report = calls.report(common, operation, pending_text if pending else status_text)
    if pending:
        report = only_left(report)
    if exit_code:
        from mydocs.migrations.errors import WorkLeft
        from mydocs.migrations.operations.status import ways_out

        if left := migrations.work_left(report):
            error = WorkLeft(left, ways_out(report))
            error.report = report
            raise error
    results.show(report)


@migrate_app.command(cls=LightCommand, epilog="Example, as an init container: mydocs migrate wait --timeout 1h")
@with_common
def wait(common: Common, timeout: Timeout = "1h", indexes: Indexes = None, report: ReportFile = None) -> None:
    """Wait until others have applied every script and every index can be queried; run nothing."""
    limit, file = calls.limit(timeout, "--timeout"), calls.report_file(report, "wait")
    models = calls.standard_indexes(indexes)
    from mydocs.cli.render import wait_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.wait_until_current(db, timeout=limit, standard_indexes=models, **shared)

    results.show(calls.report(common, operation, wait_text, file=file))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate check --output json")
@with_common
def check(
    common: Common,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also check the vectors of each vector index; reads every document.")
    ] = False,
    indexes: Indexes = None,
) -> None:
    """
    Compare files, ledger and live indexes, and run each `verify`.

    Exits with 8 if a script is pending, changed or missing, or a live index differs from what was asked for.
    Exits with 9 if a `verify` raises, or with --vectors if a vector does not fit. Changes nothing.
    """
    models = calls.standard_indexes(indexes)
    from mydocs.cli.render import status_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.check(db, vectors=vectors, standard_indexes=models, **shared)

    results.show(calls.report(common, operation, status_text))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate rollback --to 004")
@with_common
def rollback(
    common: Common,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="NUMBER", min=1, help="How many to roll back (1).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Roll back all above; it stays.")] = None,
    wait: Wait = False,
    timeout: WaitTimeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be rolled back; change nothing.")] = False,
    lock_timeout: LockTimeout = "10m",
    script_timeout: ScriptTimeout = "0",
    report: ReportFile = None,
) -> None:
    """Roll applied migrations back with their `down`, newest first."""
    if steps is not None and to is not None:
        raise calls.usage("--steps and --to exclude each other; leave one of them out")
    limit, lock_limit = calls.wait_limit(wait, timeout), calls.duration(lock_timeout, "--lock-timeout")
    script_limit = calls.limit(script_timeout, "--script-timeout")
    file = calls.report_file(report, "rollback")
    from mydocs.cli.render import rollback_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.rollback(
            db,
            steps=steps,
            target=to,
            wait=wait,
            timeout=limit,
            lock_timeout=lock_limit,
            script_timeout=script_limit,
            dry_run=dry_run,
            **shared,
        )

    results.show(calls.report(common, operation, rollback_text, file=file))


@migrate_app.command(cls=LightCommand, epilog='Example: mydocs migrate new "full text on notes" --kind search')
@with_common_but_no_database
def new(
    common: Common,
    description: Annotated[
        str, typer.Argument(metavar="DESCRIPTION", help="What it does, in a few words; becomes the file's name.")
    ],
    kind: Annotated[TemplateKind, typer.Option("--kind", help="What the template shows.")] = TemplateKind.DATA,
) -> None:
    """Write the next migration from a template and print its path."""
    from mydocs.migrations.operations.files import write_script

    path, *later = write_script(calls.directory(common), description, kind, own_project=calls.is_own_project())
    version, _, name = path.stem.partition("_")
    streams = current()
    if streams.output is Output.TABLE:
        streams.result("\n".join(map(str, (path, *later))))
    else:
        facts: dict[str, Any] = {"version": version, "name": name, "script": path.name, "path": str(path)}
        facts |= {"later": str(later[0])} if later else {}
        facts |= {"state": None, "seconds": None, "error": None}
        results.show_document({"migrations": [facts]})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate mark 003 --applied")
@with_common
def mark(
    common: Common,
    versions: Annotated[list[str] | None, typer.Argument(metavar="VERSION", help="Which migrations.")] = None,
    applied: Annotated[
        bool | None, typer.Option("--applied/--pending", help="What they are from now on.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every script: baselines an existing database.")] = False,
    yes: Yes = False,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Record migrations as applied or as pending, without running them."""
    if applied is None:
        raise calls.usage("say what they are: --applied or --pending")
    if everything == bool(versions):
        raise calls.usage("name the versions, or --all for every script" + (", not both" if everything else ""))
    lock_limit = calls.duration(lock_timeout, "--lock-timeout")
    from mydocs.cli.render import mark_text

    if everything and not applied and not yes:
        from mydocs.cli.consent import consent

        settings = calls.settings(common)
        what = f"Every migration of {settings.directory} counts as not begun in {settings.database}; each runs again."
        consent(current(), what, "Mark all as pending?")

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.mark(
            db, *(versions or ()), applied=applied, everything=everything, lock_timeout=lock_limit, **shared
        )

    results.show(calls.report(common, operation, mark_text))


@migrate_app.command("import", cls=LightCommand, epilog="Example: mydocs migrate import --from pymongo-migrate")
@with_common
def import_(
    common: Common,
    source: Annotated[
        str, typer.Option("--from", metavar="TOOL", help="pymongo-migrate, mongodb-migrations or migrate-mongo.")
    ],
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Where its records are, if it was told so.")
    ] = None,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Mark as applied what another tool has applied under the same names; run nothing."""
    lock_limit = calls.duration(lock_timeout, "--lock-timeout")
    from mydocs.cli.render import import_text

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.import_ledger(db, source=source, collection=collection, lock_timeout=lock_limit, **shared)

    results.show(calls.report(common, operation, import_text))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate pull pages --adopt")
@with_common
def pull(
    common: Common,
    collections: Annotated[
        list[str] | None, typer.Argument(metavar="COLLECTION", help="Where to look; everywhere without one.")
    ] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="Also record the script as applied.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what differs from the scripts; write nothing.")] = False,
    indexes: Indexes = None,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Write the live indexes that no migration accounts for into the next script."""
    lock_limit, models = calls.duration(lock_timeout, "--lock-timeout"), calls.standard_indexes(indexes)

    def operation(db: "Database", shared: "Shared") -> "Awaitable[PullReport]":
        return migrations.pull(
            db,
            *(collections or ()),
            adopt=adopt,
            diff=diff,
            standard_indexes=models,
            lock_timeout=lock_limit,
            **shared,
        )

    found = calls.call(common, operation)
    from mydocs.cli.render import pull_text
    from mydocs.migrations.operations.pull import to_json

    streams = current()
    if streams.output is Output.TABLE:
        streams.result(streams.clean(pull_text(found, diff=diff)))
    else:
        results.show_document(to_json(found))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate repair --yes")
@with_common
def repair(
    common: Common,
    yes: Yes = False,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Accept edited scripts as they are now and forget missing ones; shows them and asks."""
    lock_limit = calls.duration(lock_timeout, "--lock-timeout")
    from mydocs.cli.render import mark_text, repair_text

    if not yes:
        from mydocs.cli.consent import consent

        def preview(db: "Database", shared: "Shared") -> "Awaitable[Repair]":
            from mydocs.migrations.operations.settle import repair_plan

            return repair_plan(db, directory=shared["directory"])

        found = calls.call(common, preview)
        if found.changed or found.missing:
            consent(current(), repair_text(found), "Repair them?")

    def operation(db: "Database", shared: "Shared") -> "Awaitable[RunReport]":
        return migrations.repair(db, lock_timeout=lock_limit, **shared)

    results.show(calls.report(common, operation, mark_text))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate unlock --force")
@with_common
def unlock(
    common: Common,
    force: Annotated[bool, typer.Option("--force", help="Remove it although its holder is alive.")] = False,
) -> None:
    """Show who holds the lease and remove it; refuses while the holder is alive."""
    from dataclasses import asdict

    from mydocs.cli.render import plain
    from mydocs.migrations.errors import describe_holder

    async def operation(db: "Database", shared: "Shared") -> "tuple[LeaseView | None, str]":
        return await migrations.unlock(db, force=force), db.name

    found, database = calls.call(common, operation)
    held = found if found is not None and found.run_id is not None else None  # a released lease stays
    streams = current()
    if streams.output is Output.TABLE:
        # Only --force removes a live lease. The lease of a process that died has expired by itself.
        last = f"; the last was of {describe_holder(held)}" if held else ""
        taken = f"removed the lease of {describe_holder(held)}" if held and held.live else f"no lease is held{last}"
        streams.result(taken)
    else:
        facts = plain(asdict(held)) if held else None
        if facts is not None:
            facts["id"] = facts.pop("run_id")
            del facts["process"]  # only useful on this machine
        results.show_document({"database": database, "lease": facts})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate schema > report.schema.json")
@with_common_but_no_database
def schema(common: Common) -> None:
    """Print the JSON Schema of what --output json says; needs no database."""
    from mydocs.cli.schema import schema as schema_

    streams = current()
    if streams.output is not Output.QUIET:
        streams.result(results.pretty(schema_()))


@local_app.command(cls=LightCommand, epilog="Example: mydocs local serve --port 27017 --build-time 30s")
def serve(
    port: Annotated[
        int, typer.Option("--port", metavar="NUMBER", min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")
    ] = 27017,
    directory: Annotated[str, typer.Option("--dir", metavar="PATH", help="Where its data is.")] = ".mydocs",
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help="Ask for a login; the password is in MYDOCS_LOCAL_PASSWORD."),
    ] = None,
    build_time: Annotated[
        str | None, typer.Option("--build-time", metavar="DURATION", help="How long search indexes take (500ms).")
    ] = None,
) -> None:
    """Run the local server in the foreground until Ctrl-C. It is not MongoDB and does not search."""
    from mydocs.cli.serving import serve as serve_

    build_seconds = None if build_time is None else calls.duration(build_time, "--build-time")
    serve_(current(), Path(directory), port, user, build_seconds)
