"""What to type next after an error whose own sentence does not say it. Pure."""

# By the name of the class or of one above it: the first that fits, as help and usage errors import no error of ours.
NEXT = {
    "MigrationFailed": "mend the script and give the same command again; `mydocs migrate status` shows what is done",
    "ChangeInvalid": "mend the script and give the same command again: it goes on after the last finished batch",
    "NotPossible": "see to that, and give the same command again",
    "ScriptsInvalid": "mend the files; `mydocs migrate list` checks what can be seen without running them",
    "OutOfOrder": "`mydocs migrate run --allow-out-of-order` runs them all the same",
    "NotReversible": "`mydocs migrate new` makes a migration that undoes it",
    "LedgerInvalid": "`mydocs migrate status` looks again",
    "IndexConflict": "drop or rename the one in the way, and give the same command again",
    "IndexRefused": "see to what the server does not take, and give the same command again",
    "UnknownVersion": "`mydocs migrate list` shows the versions",
    "NotAuthorised": "`mydocs migrate status` tries the login; docs/permissions.md names the roles",
    "SearchUnavailable": "`mydocs migrate run --wait --local` tries the migrations on this machine",
    "ServerError": "`mydocs migrate status` asks again and shows what is done",
    "IndexFailed": "`mydocs migrate new --kind search` makes the migration; `mydocs migrate wait` looks again",
    "LeaseLost": "`mydocs migrate status` shows what is left",
    "Interrupted": "`mydocs migrate status` shows what is left",
    "PlanError": "`mydocs migrate status` shows where each migration stands",
}


# By its exit code, where it was not the script that failed.
SCRIPT_LET_DOWN = {
    3: "see to the server and the user's roles (docs/permissions.md), and give the same command again",
    5: "`mydocs migrate status` shows the index; give the same command again when it is ready",
    6: "mend the index's definition and give the same command again",
}


def next_step(error: BaseException) -> str | None:
    """Return what to type next; ``None`` where the error's sentence names it, or no command would help."""
    if "`mydocs " in str(error) and type(error).__name__ != "LeaseLost":
        return None
    if type(error).__name__ == "MigrationFailed" and (code := getattr(error, "exit_code", 1)) in SCRIPT_LET_DOWN:
        return SCRIPT_LET_DOWN[code]
    # What failed in a script may be an error of ours, which knows better than that the script failed.
    cause = error.__cause__
    if type(error).__name__ == "MigrationFailed" and cause is not None and (known := next_step(cause)) is not None:
        return known
    return next((NEXT[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in NEXT), None)
