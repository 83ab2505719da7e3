"""Flags, environment and env file become settings, and no credential comes out again."""

import base64
import contextlib
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.reporting.redaction import redact
from mydocs.migrations.settings import (
    Flags,
    Settings,
    check_name,
    load_directory,
    load_settings,
    parse_duration,
    parse_limit,
    secrets_of,
)

URL = "mongodb://host/shop"
SERVER = {"MONGO_URL": URL}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1h30m5s", 5405.0),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        (" 10M ", 600.0),
        ("0", 0.0),
    ],
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text, "--timeout") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "-1", "-1s", "soon", "1d", "h", "10 m", "1m1h", "nan", "inf", "1e3", "٣"])
def test_duration_that_is_none_is_refused_by_option_and_text(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="--timeout") as caught:
        parse_duration(text, "--timeout")
    assert text in str(caught.value)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_duration_adds_its_parts(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    expected = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert parse_duration(text, "--timeout") == pytest.approx(expected)


@given(st.text(max_size=12))
def test_duration_is_never_negative_and_never_another_error(text: str) -> None:
    with contextlib.suppress(SettingsInvalid):
        assert parse_duration(text, "--timeout") >= 0


def test_limit_of_zero_is_no_limit() -> None:
    assert parse_limit("0", "--timeout") is None
    assert parse_limit("0s", "--timeout") is None
    assert parse_limit("1", "--timeout") == 1.0


@pytest.mark.parametrize(
    ("flags", "environ", "file", "expected"),
    [
        pytest.param(Flags(url="mongodb://a/x"), {"MONGO_URL": "mongodb://b/x"}, "", "mongodb://a/x", id="flag first"),
        pytest.param(
            Flags(), {"MONGO_URL": "mongodb://b/x"}, "MONGO_URL=mongodb://c/x", "mongodb://b/x", id="then env"
        ),
        pytest.param(Flags(), {}, "MONGO_URL=mongodb://c/x", "mongodb://c/x", id="then file"),
        pytest.param(Flags(), {"MONGO_URL": ""}, "MONGO_URL=mongodb://c/x", "mongodb://c/x", id="empty is unset"),
    ],
)
def test_url_comes_from_the_strongest_source(
    flags: Flags, environ: dict[str, str], file: str, expected: str, tmp_path: Path
) -> None:
    env_file = tmp_path / "prod.env"
    env_file.write_text(file)
    chosen = load_settings(Flags(url=flags.url, env_file=str(env_file)), environ)
    assert chosen.url == expected


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        pytest.param(Flags(db="a"), {**SERVER, "MONGO_DB_NAME": "b"}, "a", id="flag"),
        pytest.param(Flags(), {**SERVER, "MONGO_DB_NAME": "b"}, "b", id="variable"),
        pytest.param(Flags(), SERVER, "shop", id="path of the URL"),
        pytest.param(Flags(local=True), SERVER, "mydocs", id="local has a default, and ignores the URL"),
        pytest.param(Flags(local=True, db="a"), SERVER, "a", id="local with a flag"),
    ],
)
def test_database_comes_from_the_strongest_source(flags: Flags, environ: dict[str, str], expected: str) -> None:
    assert load_settings(flags, environ).database == expected


@pytest.mark.parametrize(
    ("flags", "environ", "named"),
    [
        pytest.param(Flags(), {}, ["MONGO_URL", "--url", "--local"], id="no server"),
        pytest.param(Flags(url=URL, local=True), {}, ["--local", "--url"], id="two servers"),
        pytest.param(Flags(url="mongodb://host"), {}, ["--db", "MONGO_DB_NAME"], id="no database"),
        pytest.param(Flags(url="http://host/x"), {}, ["mongodb://"], id="wrong scheme"),
        pytest.param(Flags(url="mongodb:///x"), {}, ["host"], id="no host"),
        pytest.param(Flags(), {**SERVER, "MONGO_USER": "u"}, ["MONGO_PASSWORD"], id="user alone"),
        pytest.param(Flags(), {**SERVER, "MONGO_PASSWORD": "p"}, ["MONGO_USER"], id="password alone"),
        pytest.param(Flags(url=URL, db=""), {}, ["--db", "empty"], id="empty name"),
        pytest.param(Flags(url=URL, db="a.b"), {}, ["--db", "`.`"], id="dot in name"),
        pytest.param(Flags(url=URL, db="a b"), {}, ["--db", "space"], id="space in name"),
        pytest.param(Flags(url=URL, db="ä" * 32), {}, ["--db", "63 bytes"], id="long name"),
        pytest.param(Flags(url=URL, dir=""), {}, ["--dir"], id="empty directory"),
        pytest.param(Flags(url=URL, env_file="/nowhere/.env"), {}, ["--env-file", "/nowhere/.env"], id="no env file"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_set(
    flags: Flags, environ: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(flags, environ)
    assert caught.value.exit_code == 2
    assert [word for word in named if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("flags", "environ", "user"),
    [
        pytest.param(Flags(), {"MONGO_URL": "mongodb://a:b@h/x"}, "env", id="variables win over a URL beside them"),
        pytest.param(Flags(url="mongodb://h/x"), {}, "env", id="variables complete a flag"),
        pytest.param(Flags(url="mongodb://a:b@h/x"), {}, None, id="a flag's own user wins over variables"),
    ],
)
def test_credentials_of_variables_and_url(flags: Flags, environ: dict[str, str], user: str | None) -> None:
    chosen = load_settings(flags, {**environ, "MONGO_USER": "env", "MONGO_PASSWORD": "secret"})
    assert chosen.user == user


def test_user_without_password_is_enough_for_a_certificate() -> None:
    url = "mongodb://h/x?authMechanism=MONGODB-X509"
    assert load_settings(Flags(url=url), {"MONGO_USER": "CN=me"}).user == "CN=me"


def test_a_line_of_the_env_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("set -a\nMONGO_PASSWORD='open\n")
    with pytest.raises(SettingsInvalid, match=r"\.env, line 2 does not read NAME=value"):
        load_settings(Flags(env_file=str(tmp_path / ".env")), {})


def test_env_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MONGO_URL=\xff\xfe")
    with pytest.raises(SettingsInvalid, match="UTF-8"):
        load_settings(Flags(env_file=str(tmp_path / ".env")), {})


def test_directory_needs_no_server() -> None:
    assert load_directory(Flags(), {}) == Path("migrations")
    assert load_directory(Flags(), {"MYDOCS_MIGRATIONS_DIR": "a"}) == Path("a")
    assert load_directory(Flags(dir="b"), {"MYDOCS_MIGRATIONS_DIR": "a"}) == Path("b")


@pytest.mark.parametrize("mark", ["/", "?", "@", ":", "#"])
def test_unescaped_password_is_refused_without_a_piece_of_it(mark: str) -> None:
    with pytest.raises(SettingsInvalid, match="percent-encoded") as caught:
        load_settings(Flags(url=f"mongodb://user:sesame{mark}open@host/db"), {})
    assert "sesame" not in str(caught.value)
    assert "open" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://host",
        "mongodb+srv://u:p%40ss@cluster.example.net/db?retryWrites=true",
        "mongodb://a:1,b:2,c:3/db?replicaSet=rs&authSource=admin",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock/db",
        "mongodb://[::1]:27017/db",
        "mongodb://u:p@h/db?authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:a@b",
    ],
)
def test_url_in_order_is_taken(url: str) -> None:
    assert load_settings(Flags(url=url, db="x"), {}).url == url


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=8, max_size=20))
def test_no_form_of_a_password_survives_redaction(password: str) -> None:
    escaped = quote(password, safe="")
    url = f"mongodb://user:{escaped}@host/db"
    text = redact(f"1 {url} 2 <{password}> 3 <{escaped}> 4", secrets_of(url, password))
    assert f"<{password}>" not in text
    assert f"<{escaped}>" not in text
    assert f":{escaped}@" not in text


def test_short_password_goes_only_where_it_stands_alone() -> None:
    assert redact("login with a:abc at a database", ("abc", "a")) == "login with ***:*** at *** database"


def test_token_in_the_url_is_a_secret() -> None:
    url = "mongodb://h/x?authMechanismProperties=AWS_SESSION_TOKEN:t0k3nt0k3n"
    assert "t0k3nt0k3n" not in redact("it was t0k3nt0k3n", secrets_of(url, None))


def test_settings_do_not_print_their_secrets() -> None:
    chosen = load_settings(Flags(url="mongodb://u:hidden-1@h/x"), {"MONGO_PASSWORD": "hidden-2", "MONGO_USER": "me"})
    assert isinstance(chosen, Settings)
    assert "hidden" not in repr(chosen)


PASSWORD = "pä\\ss\"w'o\n€😀rd+/x"


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda word: word, id="raw"),
        pytest.param(lambda word: quote(word, safe=""), id="percent-encoded"),
        pytest.param(lambda word: quote(word, safe="").lower(), id="percent-encoded in small letters"),
        pytest.param(repr, id="repr"),
        pytest.param(ascii, id="ascii"),
        pytest.param(lambda word: repr(repr(word)), id="repr of repr"),
        pytest.param(lambda word: repr({"password": word}), id="repr of a mapping"),
        pytest.param(lambda word: repr(word.encode()), id="repr of bytes"),
        pytest.param(json.dumps, id="JSON"),
        pytest.param(lambda word: json.dumps(word, ensure_ascii=False), id="JSON in Unicode"),
        pytest.param(lambda word: json.dumps(json.dumps(word)), id="JSON in JSON"),
        pytest.param(lambda word: json.dumps(word).replace("/", "\\/"), id="JSON with escaped slashes"),
        pytest.param(lambda word: base64.b64encode(word.encode()).decode(), id="base64"),
        pytest.param(html.escape, id="HTML"),
        pytest.param(lambda word: html.escape(word).replace("&#x27;", "&#39;"), id="HTML with decimal references"),
        pytest.param(lambda word: word.encode("ascii", "xmlcharrefreplace").decode(), id="HTML of ASCII"),
        pytest.param(lambda word: json.dumps(html.escape(word)), id="HTML in JSON"),
        pytest.param(lambda word: base64.urlsafe_b64encode(word.encode()).decode(), id="base64 of URLs"),
    ],
)
@pytest.mark.parametrize("password", [PASSWORD, "hunter2-secret", "kürzer", "p&ss<w>rd'x"])
def test_a_secret_is_found_however_it_is_written(password: str, written: Callable[[str], str]) -> None:
    text = f"before <{written(password)}> after"
    clean = redact(text, (password,))
    assert "***" in clean
    for piece in ("hunter2", "kürzer", "rd+/x", "rd%2", "w'o", "w\\'o", written(password).strip("'\"")):
        assert piece not in clean
    assert clean.startswith("before <")
    assert clean.endswith("> after")


@pytest.mark.parametrize("user", ["me", "mee", "meee"])
def test_a_secret_is_found_inside_base64(user: str) -> None:
    """As of a login in a header, at each of three places in a group."""
    header = base64.b64encode(f"{user}:hunter2-secret!".encode()).decode()
    clean = redact(f"Basic {header}", ("hunter2-secret",))
    assert "***" in clean
    kept = clean.replace("Basic ", "").partition("***")
    assert all(piece in header for piece in kept[::2])
    assert len(kept[0]) + len(kept[2]) < len(header) - 16


@pytest.mark.parametrize("user", ["me", "mee", "meee"])
@pytest.mark.parametrize("password", ["hunter2", "secret", "pässw"])
def test_a_short_secret_is_found_inside_base64(user: str, password: str) -> None:
    header = base64.b64encode(f"{user}:{password}".encode()).decode()
    assert "***" in redact(f"Basic {header}", (password,))


@given(st.text(min_size=8, max_size=20), st.sampled_from([repr, ascii, json.dumps]))
def test_no_escaped_form_of_a_password_survives(password: str, written: Callable[[str], str]) -> None:
    inner = written(password)[1:-1]
    assert f"<{inner}>" not in redact(f"<{inner}>", (password,))


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://u:p@ss/w0rd@host/db",
        "mongodb://u:p@ss/w0rd@host:27017/db?retryWrites=true",
        "mongodb+srv://u:p@ss/w0rd@host/db",
        "mongodb://u:p@ss?w0rd@host/db",
        "mongodb://u:p@ss?w0=rd@host/db",
        "mongodb://u:p@ss#w0rd@host/db",
        "mongodb://u:ss/w0rd@host/db",
        "mongodb://u:p@ss:w0rd@host/db",
    ],
)
def test_a_url_with_an_unescaped_password_shows_nothing_of_it(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="percent-encoded") as caught:
        load_settings(Flags(url=url), {})
    assert [piece for piece in ("w0", "rd", "ss/", "host") if piece in str(caught.value).replace("password", "")] == []


@pytest.mark.parametrize("space", ["\n", " ", "\t", "\r\n", "\u00a0"])
@pytest.mark.parametrize(
    "name", ["MONGO_URL", "MONGO_DB_NAME", "MONGO_USER", "MONGO_PASSWORD", "MYDOCS_MIGRATIONS_DIR"]
)
@pytest.mark.parametrize("where", ["environment", "env file"])
def test_white_space_at_an_end_names_its_variable(name: str, space: str, where: str, tmp_path: Path) -> None:
    values = {"MONGO_URL": "mongodb://h/x", "MONGO_DB_NAME": "app"}
    values |= {"MONGO_USER": "me", "MONGO_PASSWORD": "hidden-1"}
    for value in (values.get(name, "m") + space, space + values.get(name, "m")):
        environ = {**values, name: value}
        if where == "env file":
            lines = [f"{key}={json.dumps(text, ensure_ascii=False)}\n" for key, text in environ.items()]
            (tmp_path / ".env").write_text("".join(lines), encoding="utf-8")
            environ = {}
        with pytest.raises(SettingsInvalid, match=f"^{name} (begins|ends) with white space") as caught:
            load_settings(Flags(env_file=str(tmp_path / ".env") if where == "env file" else None), environ)
        assert "hidden-1" not in str(caught.value)


@pytest.mark.parametrize(
    "flags", [{"url": "mongodb://h/x\n"}, {"url": "mongodb://h/x", "db": " app"}], ids=["url", "db"]
)
def test_white_space_at_an_end_names_its_option(flags: dict[str, str]) -> None:
    chosen = Flags(url=flags["url"], db=flags.get("db"))
    with pytest.raises(SettingsInvalid, match=f"^--{list(flags)[-1]} (begins|ends) with white space"):
        load_settings(chosen, {})


@pytest.mark.parametrize("name", ["admin", "local", "config"])
def test_a_database_of_the_servers_own_is_no_target_of_a_url(name: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"the URL ends in /{name}.* --db or MONGO_DB_NAME"):
        load_settings(Flags(url=f"mongodb://h/{name}?retryWrites=true"), {})
    assert load_settings(Flags(url=f"mongodb://h/{name}", db="app"), {}).database == "app"


@pytest.mark.parametrize("name", ["admin", "local", "config"])
@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        ({"url": "mongodb://h/", "db": "{}"}, {}),
        ({"url": "mongodb://h/app"}, {"MONGO_DB_NAME": "{}"}),
        ({"local": True, "db": "{}"}, {}),
        ({"local": True}, {"MONGO_DB_NAME": "{}"}),
    ],
    ids=["--db", "MONGO_DB_NAME", "--db on the local server", "MONGO_DB_NAME on the local server"],
)
def test_a_database_of_the_servers_own_is_no_target_at_all(
    flags: dict[str, Any], environ: dict[str, str], name: str
) -> None:
    chosen: dict[str, Any] = {
        key: given.format(name) if isinstance(given, str) else given for key, given in flags.items()
    }
    sentence = f"^{name} is a database of the server's own; name the one to migrate with --db or MONGO_DB_NAME$"
    with pytest.raises(SettingsInvalid, match=sentence):
        load_settings(Flags(**chosen), {key: value.format(name) for key, value in environ.items()})


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\x9bb", "a\u202eb"])
def test_a_control_character_in_a_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsInvalid, match="control character"):
        check_name(name)
