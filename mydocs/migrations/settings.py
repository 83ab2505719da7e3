"""Turn flags, environment, env file and project into frozen settings. I/O: reads those two files."""

import io
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, unquote_plus

from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.project import find_project
from mydocs.migrations.reporting.escaping import visible
from mydocs.migrations.reporting.redaction import PUBLIC_PROPERTIES, SECRET_OPTIONS
from mydocs.migrations.values import value

DEFAULT_DIRECTORY = "migrations"
LOCAL_DATABASE = "mydocs"  # only with --local: the database of a real deployment is never guessed
SCHEMES = ("mongodb://", "mongodb+srv://")

# https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions; the stricter Windows list, since a name
# must be valid on all servers of a deployment.
FORBIDDEN_IN_NAME = '/\\. "$*<>:|?\0'
MAX_NAME_BYTES = 63

# The server's own databases. One of them in a URL's path usually means the database of logins, `authSource`.
SYSTEM_DATABASES = frozenset({"admin", "config", "local"})

# Options of a connection string whose values may contain an `@`. Elsewhere behind the host it is part of a password.
OPTIONS_WITH_AT = frozenset({"appname", "authmechanismproperties"})

# These mechanisms take a user without a password: specifications/source/auth/auth.md.
PASSWORDLESS = frozenset({"MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC", "GSSAPI"})

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# As text, so that a command which reads no duration and no URL, such as `list`, compiles no pattern.
_DURATION = (
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?"
)
_NUMBER = r"\d+(?:\.\d+)?"


@value
class Flags:
    """The options of the command line; ``None`` for each that was not given."""

    url: str | None = None
    db: str | None = None
    dir: str | None = None
    env_file: str | None = None
    local: bool = False


@value
class Settings:
    """
    The database and the folder of the scripts.

    ``url`` is ``None`` for the local server. ``user`` and ``password`` come from variables and complete or replace
    those of the URL. ``secrets`` are all texts that must not be shown.
    """

    directory: Path
    database: str
    url: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def local(self) -> bool:
        return self.url is None


def parse_duration(text: str, option: str) -> float:
    """
    Convert ``90``, ``90s``, ``10m``, ``1h30m`` or ``500ms`` to seconds.

    :raises SettingsInvalid: names the option; also for a negative duration
    """
    compact = text.strip().lower()
    if re.fullmatch(_NUMBER, compact, re.ASCII):
        return float(compact)
    match = re.fullmatch(_DURATION, compact, re.ASCII) if compact else None
    if match is None:
        raise SettingsInvalid(f'{option}: "{text}" is not a duration; write 90, 90s, 10m, 1h, 1h30m or 500ms')
    return sum(float(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount is not None)


def parse_limit(text: str, option: str) -> float | None:
    """Convert a duration to seconds, and ``0`` to ``None``: no limit."""
    return parse_duration(text, option) or None


def load_directory(flags: Flags, environ: Mapping[str, str]) -> Path:
    """Return the folder of the scripts, the only setting of a command without a database."""
    return _directory(flags, _Sources(environ, flags.env_file))


def load_settings(flags: Flags, environ: Mapping[str, str]) -> Settings:
    """
    Decide every setting. A flag beats the environment, which beats the env file, which beats the project's table.

    :raises SettingsInvalid: one sentence that names what is missing or wrong
    """
    sources = _Sources(environ, flags.env_file)
    directory = _directory(flags, sources)
    if flags.local:
        if flags.url is not None:
            raise SettingsInvalid("--local and --url exclude each other; leave one of them out")
        named = _given(flags.db, "--db", sources, "MONGO_DB_NAME")[0]
        return Settings(directory=directory, database=check_name(LOCAL_DATABASE if named is None else named))

    url, url_rank = _given(flags.url, "--url", sources, "MONGO_URL")
    if not url:
        raise SettingsInvalid("no database to work on; set MONGO_URL or --url, or try on this machine with --local")
    check_url(url)
    user, password = _credentials(sources, url, url_rank)
    named = _given(flags.db, "--db", sources, "MONGO_DB_NAME")[0]
    if named is None:
        named = url_database(url)
        if named in SYSTEM_DATABASES:
            raise SettingsInvalid(
                f"the URL ends in /{named}, which is a database of the server's own; name the one to migrate with --db "
                "or MONGO_DB_NAME" + (", and where logins are kept with ?authSource=admin" if named == "admin" else "")
            )
    if named is None:
        raise SettingsInvalid("no database name; set --db or MONGO_DB_NAME, or end the URL with /name")
    return Settings(
        directory=directory,
        database=check_name(named),
        url=url,
        user=user,
        password=password,
        secrets=secrets_of(url, password),
    )


def check_name(name: str) -> str:
    """Return a database name, or raise the reason for which it cannot be migrated."""
    bad = sorted(set(name) & set(FORBIDDEN_IN_NAME))
    if not name:
        problem = "is empty"
    elif bad:
        problem = "has " + ", ".join(
            {" ": "a space", "\0": "a NUL"}.get(character, f"`{character}`") for character in bad
        )
    elif visible(name) != name or not set(name).isdisjoint("\t\n"):
        raise SettingsInvalid("the database name has a control character; check --db or MONGO_DB_NAME")
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        problem = f"is longer than {MAX_NAME_BYTES} bytes"
    elif name in SYSTEM_DATABASES:
        raise SettingsInvalid(
            f"{name} is a database of the server's own; name the one to migrate with --db or MONGO_DB_NAME"
        )
    else:
        return name
    raise SettingsInvalid(
        f'the database name "{visible(name)}" {problem}, which no server allows; check --db or MONGO_DB_NAME'
    )


def check_url(url: str) -> None:
    """
    Refuse a text that cannot be a connection string, without quoting it.

    The driver checks more later. But if a password contains an unescaped ``/``, ``?`` or ``@``, the driver's message
    would quote a piece of the password as the port.
    """
    scheme = next((scheme for scheme in SCHEMES if url.lower().startswith(scheme)), None)
    if scheme is None:
        raise SettingsInvalid("the URL must begin with mongodb:// or mongodb+srv://; check --url or MONGO_URL")
    authority, rest = _split_authority(url[len(scheme) :])
    userinfo, _, hosts = authority.rpartition("@")
    path, _, query = rest.partition("?")
    options = [option for option in re.split("[&;]", query) if "@" in option]
    astray = "@" in path or any(option.partition("=")[0].lower() not in OPTIONS_WITH_AT for option in options)
    if astray or "@" in userinfo or userinfo.count(":") > 1:
        raise SettingsInvalid(
            "user and password in the URL must be percent-encoded (`@` as %40, `:` as %3A, `/` as %2F, `?` as %3F); "
            "or give them in MONGO_USER and MONGO_PASSWORD"
        )
    if not hosts:
        raise SettingsInvalid("the URL names no host; check --url or MONGO_URL")


def url_database(url: str) -> str | None:
    """Return the database in a connection string's path, if there is one."""
    path = url.partition("://")[2].partition("?")[0].partition("/")[2]
    return unquote_plus(path) or None


def secrets_of(url: str | None, password: str | None) -> tuple[str, ...]:
    """Return the credentials that no message may show, the longest first."""
    found = {password or ""}
    if url:
        rest = url.partition("://")[2]
        for userinfo in (_split_authority(rest)[0].rpartition("@")[0], rest.partition("?")[0].rpartition("@")[0]):
            word = userinfo.partition(":")[2]
            found |= {word, unquote(word), unquote_plus(word)}
        for option, value in parse_qsl(rest.partition("?")[2]):
            if option.lower() in SECRET_OPTIONS:
                parts = [part.partition(":") for part in value.split(",")]
                found |= {after or name for name, _, after in parts if name not in PUBLIC_PROPERTIES}
    return tuple(sorted(found - {""}, key=lambda secret: (-len(secret), secret)))


class _Sources:
    """Environment before env file. An empty variable counts as unset, since container tools pass unset ones so."""

    def __init__(self, environ: Mapping[str, str], env_file: str | None) -> None:
        self._levels: tuple[Mapping[str, str | None], ...] = (environ, _read_env_file(env_file))

    def get(self, name: str) -> tuple[str | None, int]:
        """Return a value and its rank. 0 is a flag; a lower rank wins."""
        for rank, level in enumerate(self._levels, start=1):
            value = level.get(name)
            if value:
                return value, rank
        return None, len(self._levels) + 1


def _read_env_file(name: str | None) -> Mapping[str, str | None]:
    if name is None:
        return {}
    from dotenv import dotenv_values, parser  # imported only if a file is named

    path = Path(name)
    if not path.is_file():
        raise SettingsInvalid(f"no file {name}; check --env-file")
    try:
        text = path.read_text(encoding="utf-8")
        for line in parser.parse_stream(io.StringIO(text)):
            # Lines of other programs may be shell code. Only a line with one of our variables must be readable.
            if line.error and re.search("MONGO_|MYDOCS_", line.original.string):
                where = f"{name}, line {line.original.line}"
                raise SettingsInvalid(f"{where} does not read NAME=value; correct it, or check --env-file")
        return dotenv_values(stream=io.StringIO(text))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsInvalid(f"{name} cannot be read: {why}; check --env-file") from error


def _directory(flags: Flags, sources: _Sources) -> Path:
    if flags.dir is not None:
        if not flags.dir:
            raise SettingsInvalid("--dir is empty; name the directory that contains the scripts")
        return Path(flags.dir)
    named = _given(None, "--dir", sources, "MYDOCS_MIGRATIONS_DIR")[0]
    return Path(named) if named else find_project(Path.cwd()).directory or Path(DEFAULT_DIRECTORY)


def _given(flag: str | None, option: str, sources: _Sources, variable: str) -> tuple[str | None, int]:
    """
    Return the value of an option or else a variable, and the rank of its source; 0 is the option.

    White space at an end comes from a file that was read whole, or from a superfluous quotation mark. It is never
    meant, and a server would accept it as a part of the name.
    """
    value, rank, name = (flag, 0, option) if flag is not None else (*sources.get(variable), variable)
    if value is not None and value != value.strip():
        end = "begins" if value != value.lstrip() else "ends"
        raise SettingsInvalid(f"{name} {end} with white space, such as a line end; remove it")
    return value, rank


def _credentials(sources: _Sources, url: str, url_rank: int) -> tuple[str | None, str | None]:
    """
    Choose between the variables and the URL's own user.

    The variables win over a URL of the same source, as in lightodm. A URL with a user from a stronger source wins over
    the variables.
    """
    user, user_rank = _given(None, "", sources, "MONGO_USER")
    password, password_rank = _given(None, "", sources, "MONGO_PASSWORD")
    if user is None and password is None:
        return None, None
    if "@" in _split_authority(url.partition("://")[2])[0] and min(user_rank, password_rank) > url_rank:
        return None, None
    options = {key.lower(): value for key, value in parse_qsl(url.partition("?")[2])}
    if password is None and options.get("authmechanism", "").upper() not in PASSWORDLESS:
        raise SettingsInvalid("MONGO_USER is set and MONGO_PASSWORD is not; set both or none")
    if user is None:
        raise SettingsInvalid("MONGO_PASSWORD is set and MONGO_USER is not; set both or none")
    return user, password


def _split_authority(rest: str) -> tuple[str, str]:
    match = re.search(r"[/?#]", rest)
    return (rest[: match.start()], rest[match.start() :]) if match else (rest, "")
