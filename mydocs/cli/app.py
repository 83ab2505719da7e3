"""The commands: each parses, makes one call and renders. Imports of drivers and of the runner stay inside them."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import mydocs
from mydocs.cli import calls
from mydocs.cli.edge import EXIT_CODES, EdgeGroup
from mydocs.cli.light import LightCommand, LightGroup
from mydocs.cli.options import Common, keep_common, say_help, with_common
from mydocs.cli.streams import Output, current
from mydocs.migrations.scripts.templates import TemplateKind

app = typer.Typer(
    name="mydocs",
    cls=EdgeGroup,
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
    str, typer.Option("--lock-timeout", metavar="DURATION", help="Wait so long for the lease; 0 is one try.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="End only when every search index can be queried.")]
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
    timeout: Timeout = "1h",
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
    report: ReportFile = None,
) -> None:
    """Run what is pending, and with --wait end when every search index can be queried."""
    limit, lock_limit = calls.limit(timeout, "--timeout"), calls.duration(lock_timeout, "--lock-timeout")
    file = calls.report_file(report, "run")
    plan: dict[str, Any] = {"target": to, "allow_changed": allow_changed, "allow_out_of_order": allow_out_of_order}
    if dry_run:
        calls.show(calls.report(common, "run_text", "operations.migrate.dry_run", file=file, **plan))
        return
    rest: dict[str, Any] = {"wait": wait, "timeout": limit, "lock_timeout": lock_limit}
    calls.show(calls.report(common, "run_text", "operations.migrate.migrate", file=file, **plan, **rest))


@migrate_app.command("list", cls=LightCommand, epilog="Example: mydocs migrate list --output json")
@with_common
def list_(common: Common) -> None:
    """Show the scripts on disk; needs no database."""
    from mydocs.migrations.scripts.discover import discover
    from mydocs.migrations.settings import load_directory

    streams = current()
    found = discover(load_directory(calls.flags(common), os.environ))
    for warning in found.warnings:
        streams.note(f"warning: {warning}")
    if streams.output is Output.TABLE:
        rows = [(s.version, s.name, s.kind.value, "yes" if s.reversible else "no") for s in found.scripts]
        from mydocs.cli.tables import table

        streams.result(table(("VERSION", "NAME", "KIND", "REVERSIBLE"), rows) or "no scripts")
        return
    migrations = [
        {
            "version": script.version,
            "name": script.name,
            "script": script.file_name,
            "state": None,  # only the ledger knows
            "seconds": None,
            "error": None,
            "kind": script.kind.value,
            "reversible": script.reversible,
            "checksum": script.checksum,
        }
        for script in found.scripts
    ]
    calls.show_document({"migrations": migrations})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate status --exit-code")
@with_common
def status(
    common: Common,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 8 if anything is left to do.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Also show every attempt, oldest first.")] = False,
) -> None:
    """Show every migration and every tracked index with its state."""
    report = calls.report(common, "status_text", "operations.status.status", history=history)
    if exit_code:
        from mydocs.migrations.errors import WorkLeft
        from mydocs.migrations.operations.status import ways_out, work_left

        if left := work_left(report):
            error = WorkLeft(left, ways_out(report))
            error.report = report
            raise error
    calls.show(report)


@migrate_app.command(cls=LightCommand, epilog="Example, as an init container: mydocs migrate wait --timeout 1h")
@with_common
def wait(common: Common, timeout: Timeout = "1h", report: ReportFile = None) -> None:
    """Wait until others have applied every script and every index can be queried; run nothing."""
    limit, file = calls.limit(timeout, "--timeout"), calls.report_file(report, "wait")
    calls.show(calls.report(common, "run_text", "operations.wait.wait_until_current", file=file, timeout=limit))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate check --output json")
@with_common
def check(common: Common) -> None:
    """Exit with 8 unless files, ledger and live indexes agree; for CI. Changes nothing."""
    calls.show(calls.report(common, "status_text", "operations.check.check"))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate rollback --to 004")
@with_common
def rollback(
    common: Common,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="How many to take back (1).")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Take back all above; it stays.")] = None,
    wait: Wait = False,
    timeout: Timeout = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken back; change nothing.")] = False,
    lock_timeout: LockTimeout = "10m",
    report: ReportFile = None,
) -> None:
    """Take applied migrations back with their `down`, newest first."""
    if steps is not None and to is not None:
        raise calls.usage("--steps and --to exclude each other; leave one of them out")
    limit, lock_limit = calls.limit(timeout, "--timeout"), calls.duration(lock_timeout, "--lock-timeout")
    file = calls.report_file(report, "rollback")
    options: dict[str, Any] = {"steps": steps, "target": to, "dry_run": dry_run}
    options |= {"wait": wait, "timeout": limit, "lock_timeout": lock_limit}
    calls.show(calls.report(common, "rollback_text", "operations.rollback.rollback", file=file, **options))


@migrate_app.command(cls=LightCommand, epilog='Example: mydocs migrate new "full text on notes" --kind search')
@with_common
def new(
    common: Common,
    description: Annotated[str, typer.Argument(help="What it does, in a few words; becomes the file's name.")],
    kind: Annotated[TemplateKind, typer.Option("--kind", help="What the template shows.")] = TemplateKind.DATA,
) -> None:
    """Write the next migration from a template and print its path."""
    from mydocs.cli.scaffold import write_script
    from mydocs.migrations.settings import load_directory

    path = write_script(load_directory(calls.flags(common), os.environ), description, kind)
    version, _, name = path.stem.partition("_")
    streams = current()
    if streams.output is Output.TABLE:
        streams.result(str(path))
    else:
        facts: dict[str, Any] = {"version": version, "name": name, "script": path.name, "path": str(path)}
        facts |= {"state": None, "seconds": None, "error": None}
        calls.show_document({"migrations": [facts]})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate mark 003 --applied")
@with_common
def mark(
    common: Common,
    versions: Annotated[list[str] | None, typer.Argument(metavar="VERSION...", help="Which migrations.")] = None,
    applied: Annotated[
        bool | None, typer.Option("--applied/--pending", help="What they are from now on.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every script: baselines an existing database.")] = False,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Settle what the ledger says of a migration without running it."""
    if applied is None:
        raise calls.usage("say what they are: --applied or --pending")
    if everything == bool(versions):
        raise calls.usage("name the versions, or --all for every script" + (", not both" if everything else ""))
    lock_limit = calls.duration(lock_timeout, "--lock-timeout")
    options: dict[str, Any] = {"applied": applied, "everything": everything, "lock_timeout": lock_limit}
    calls.show(calls.report(common, "mark_text", "operations.settle.mark", *(versions or ()), **options))


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate repair --yes")
@with_common
def repair(
    common: Common,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    lock_timeout: LockTimeout = "10m",
) -> None:
    """Accept edited scripts as they are now and forget missing ones; shows them and asks."""
    lock_limit = calls.duration(lock_timeout, "--lock-timeout")
    if not yes:
        from mydocs.cli.ask import consent
        from mydocs.cli.render import repair_text

        plan_of = calls.function("operations.settle.repair_plan")
        found = calls.call(common, lambda db, to: plan_of(db, directory=to["directory"]))
        if found.changed or found.missing:
            consent(current(), repair_text(found.changed, found.missing), "Repair them?")
    calls.show(calls.report(common, "mark_text", "operations.settle.repair", lock_timeout=lock_limit))


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

    async def act(db: Any, to: dict[str, Any]) -> Any:
        return await calls.function("operations.settle.unlock")(db, force=force), db.name

    found, database = calls.call(common, act)
    held = found is not None and found.run_id is not None  # a lease that was given back leaves its document
    streams = current()
    if streams.output is Output.TABLE:
        # Only force takes one away that is alive; the lease of a process that died has run out by itself.
        taken = f"removed the lease of {describe_holder(found)}" if found is not None and found.live else None
        streams.result(taken or "no lease is held" + (f"; the last was of {describe_holder(found)}" if held else ""))
    else:
        calls.show_document({"database": database, "lease": plain(asdict(found)) if held else None})


@migrate_app.command(cls=LightCommand, epilog="Example: mydocs migrate schema > report.schema.json")
@with_common
def schema(common: Common) -> None:
    """Print the JSON Schema of what --output json says; needs no database."""
    from mydocs.cli.schema import schema as schema_

    streams = current()
    if streams.output is not Output.QUIET:
        streams.result(calls.pretty(schema_()))


@local_app.command(cls=LightCommand, epilog="Example: mydocs local serve --port 27017 --build-time 30s")
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 27017,
    directory: Annotated[str, typer.Option("--dir", metavar="PATH", help="Where its data is.")] = ".mydocs",
    user: Annotated[
        str | None, typer.Option("--user", help="Ask for a login; the password is in MYDOCS_LOCAL_PASSWORD.")
    ] = None,
    build_time: Annotated[
        str | None, typer.Option("--build-time", metavar="DURATION", help="How long search indexes take (500ms).")
    ] = None,
) -> None:
    """Run the local server in the foreground until Ctrl-C. It is not MongoDB and does not search."""
    from mydocs.cli.serving import serve as serve_

    build_seconds = None if build_time is None else calls.duration(build_time, "--build-time")
    serve_(current(), Path(directory), port, user, build_seconds)
