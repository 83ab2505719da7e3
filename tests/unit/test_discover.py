"""A folder of files becomes scripts in order, or an error that names every problem; nothing in it is run."""

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.errors import DirectoryMissing, ScriptsInvalid
from mydocs.migrations.model import Script, ScriptKind
from mydocs.migrations.scripts.discover import INDEX_CALLS, discover
from mydocs.migrations.scripts.source import checksum, read_source

UP = "async def up(db):\n    pass\n"
DOWN = "async def down(db):\n    pass\n"


def one(folder: Path, text: str | bytes, name: str = "001_a.py") -> Script:
    """Discover a folder that holds one file."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (script,) = discover(folder).scripts
    return script


def test_scripts_run_in_the_order_of_their_numbers_and_not_of_their_texts(tmp_path: Path) -> None:
    for name in ("1000_last.py", "999_before.py", "0002_second.py", "001_First-one.py"):
        (tmp_path / name).write_text("")
    found = discover(tmp_path).scripts
    assert [(s.number, s.version, s.name) for s in found] == [
        (1, "001", "First-one"),
        (2, "0002", "second"),
        (999, "999", "before"),
        (1000, "1000", "last"),
    ]


def test_what_does_not_begin_with_a_digit_is_none_of_ours(tmp_path: Path) -> None:
    for name in ("helpers.py", "_001_a.py", ".001_a.py", "README.md", "a.001.py"):
        (tmp_path / name).write_text("def up(: not Python")
    (tmp_path / "__pycache__").mkdir()
    found = discover(tmp_path)
    assert (found.scripts, found.warnings) == ((), ())


def test_a_file_that_only_lacks_the_ending_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "001_notes.txt").write_text("")
    found = discover(tmp_path)
    assert found.scripts == ()
    assert len(found.warnings) == 1
    assert "001_notes.txt" in found.warnings[0]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        pytest.param("1_a.py", "001_a.py", id="one digit"),
        pytest.param("12_a.py", "012_a.py", id="two digits"),
        pytest.param("001.py", "001_description.py", id="no description"),
        pytest.param("001_.py", "001_description.py", id="empty description"),
        pytest.param("001-a.py", "001_a.py", id="another separator"),
        pytest.param("001 a.py", "001_a.py", id="a blank"),
        pytest.param("001_a b.py", "001_a_b.py", id="a blank inside"),
        pytest.param("001_über.py", "001_ber.py", id="a letter beyond ASCII"),
        pytest.param("001_a.b.py", "001_a_b.py", id="a dot"),
        pytest.param("001_a.PY", "small letters", id="ending in capitals"),
    ],
)
def test_a_name_that_does_not_fit_is_an_error_that_says_what_would(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_text(UP)
    with pytest.raises(ScriptsInvalid, match=re.escape(advice)) as caught:
        discover(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("001_a.py", "001_b.py"), id="same digits"),
        pytest.param(("001_a.py", "0001_b.py"), id="same number, other digits"),
    ],
)
def test_two_files_with_one_number_are_an_error_that_names_both(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_text(UP)
    with pytest.raises(ScriptsInvalid) as caught:
        discover(tmp_path)
    assert all(name in str(caught.value) for name in names)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "1_a.py").write_text(UP)
    (tmp_path / "002_b.py").write_text("def up(:")
    (tmp_path / "003_c.py").write_text("def up(db): ...")
    with pytest.raises(ScriptsInvalid) as caught:
        discover(tmp_path)
    assert [problem.split(".py")[0] for problem in caught.value.problems] == ["002_b", "003_c", "1_a"]


def test_a_missing_folder_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DirectoryMissing, match="nowhere") as caught:
        discover(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def a_directory(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nothing.py")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(a_directory, "a directory", id="directory"),
        pytest.param(a_dangling_link, "a link to nothing", id="dangling link"),
        pytest.param(a_link_to_itself, "a link to nothing", id="link to itself"),
    ],
)
def test_what_is_named_like_a_script_and_is_no_file_is_an_error(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    make(tmp_path / "001_a.py")
    with pytest.raises(ScriptsInvalid, match=f"001_a.py is {says}"):
        discover(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "001_a.py").write_text(UP)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ScriptsInvalid, match="cannot be read: Permission denied"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b"x = 1\ndef up(:\n", "line 2 is not valid Python", id="syntax error with its line"),
        pytest.param(b"x = '\xff'\n", "missing encoding declaration", id="not UTF-8 at its start"),
        pytest.param(b"\n\nx = '\xff'\n", "not utf-8 at byte 7", id="not UTF-8 further down"),
        pytest.param(b"# coding: klingon\n", "not valid Python", id="unknown encoding"),
        pytest.param(b"# coding: rot13\n", "001_a.py is in an encoding that Python cannot read", id="a codec"),
        pytest.param(b"x = 1\x00\n", "001_a.py", id="NUL byte"),
        pytest.param(b"x = " + b"(" * 3000 + b")" * 3000, "001_a.py", id="nested beyond the parser"),
        pytest.param(b"def up(db): ...\n", "line 1: `def up` must be `async def up", id="up is not async"),
        pytest.param(UP.encode() + b"def down(db): ...", "must be `async def down", id="down is not async"),
        pytest.param(DOWN.encode(), "`async def down` and no `async def up", id="down without up"),
        pytest.param(b"async def up(): ...", "called as `up\\(db\\)`", id="up takes nothing"),
        pytest.param(b"async def up(db, session): ...", "called as `up\\(db\\)`", id="up wants a second argument"),
        pytest.param(b"async def up(db, *, key): ...", "called as `up\\(db\\)`", id="up wants a keyword"),
        pytest.param(b"async def up(*, db): ...", "called as `up\\(db\\)`", id="up takes its argument by keyword only"),
        pytest.param(
            UP.encode() + b"async def down(db, n): ...", "called as `down\\(db\\)`", id="down wants a second argument"
        ),
        pytest.param(
            b"TRANSACTIONAL = True\n" + UP.encode(), "called as `up\\(db, session\\)`", id="up takes no session"
        ),
        pytest.param(b"TRANSACTIONAL = True\n", "TRANSACTIONAL = True, which needs", id="plain and transactional"),
        pytest.param(b"IDEMPOTENT = 0\n" + UP.encode(), "line 1: IDEMPOTENT must be", id="constant is no bool"),
        pytest.param(b"IDEMPOTENT = not 1\n", "IDEMPOTENT must be written as True or False", id="constant is computed"),
        pytest.param(
            b"if 1:\n    IDEMPOTENT = False\n", "IDEMPOTENT must be written as .*on a line", id="constant in a block"
        ),
        pytest.param(b"IDEMPOTENT, n = False, 1\n", "IDEMPOTENT must be written as", id="constant in a tuple"),
        pytest.param(
            b"try: pass\nexcept ValueError: IDEMPOTENT = False\n",
            "IDEMPOTENT must",
            id="constant in a handler",
        ),
        pytest.param(b"with open('x') as IDEMPOTENT: pass\n", "IDEMPOTENT must", id="constant of a with"),
        pytest.param(b"[IDEMPOTENT := n for n in (0,)]\n", "IDEMPOTENT must", id="constant of a walrus"),
    ],
)
def test_a_file_that_cannot_be_a_migration_is_an_error_that_says_why(tmp_path: Path, raw: bytes, says: str) -> None:
    with pytest.raises(ScriptsInvalid, match=says):
        one(tmp_path, raw)


TRANSACTIONAL = """TRANSACTIONAL = True

async def up(db, session=None):
    await helper(db, session)

async def helper(db, session):
    await db.a.insert_one({}, session=session)
    {call}
"""


@pytest.mark.parametrize("method", [False, True], ids=["function", "method"])
@pytest.mark.parametrize("name", sorted(INDEX_CALLS))
def test_a_script_in_a_transaction_that_would_change_indexes_is_an_error_with_its_line(
    tmp_path: Path, name: str, method: bool
) -> None:
    call = f"await db.a.{name}('a')" if method else f"await {name}(db.a, [])"
    with pytest.raises(
        ScriptsInvalid, match=rf"^001_a\.py, line 8: {name} cannot be used .* builds and drops no indexes"
    ):
        one(tmp_path, TRANSACTIONAL.replace("{call}", call))
    other = tmp_path / "outside"
    other.mkdir()
    assert not one(other, TRANSACTIONAL.replace("{call}", call).replace("= True", "= False")).transactional


def test_a_script_in_a_transaction_may_read_what_indexes_there_are(tmp_path: Path) -> None:
    call = "await db.a.index_information(session=session)  # not create_index()"
    assert one(tmp_path, TRANSACTIONAL.replace("{call}", call)).transactional


def test_a_text_is_parsed_once_and_an_edit_is_seen_at_once(tmp_path: Path) -> None:
    first = one(tmp_path, UP)
    with patch("ast.parse", side_effect=AssertionError("parsed again")):
        assert one(tmp_path, UP) == first
    edited = one(tmp_path, UP + DOWN)
    assert (edited.checksum != first.checksum, edited.reversible) == (True, True)


def test_a_folder_below_one_that_may_not_be_searched_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(DirectoryMissing, match="Permission denied") as caught:
        discover(tmp_path)
    assert caught.value.exit_code == 2


def test_a_folder_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(DirectoryMissing, match=r"cannot be read \(Permission denied\).*--dir"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "reversible"),
    [
        pytest.param(UP, ScriptKind.ASYNC, False, id="up"),
        pytest.param(UP + DOWN, ScriptKind.ASYNC, True, id="up and down"),
        pytest.param("def down(a, b): ...\n", ScriptKind.PLAIN, False, id="a plain script's own down"),
        pytest.param("async def up(db, session=None): ...", ScriptKind.ASYNC, False, id="more with a default"),
        pytest.param("async def up(*arguments): ...", ScriptKind.ASYNC, False, id="any arguments"),
        pytest.param("print('done')", ScriptKind.PLAIN, False, id="top level"),
        pytest.param("def run(): ...\nif __name__ == '__main__': run()", ScriptKind.PLAIN, False, id="main guard"),
        pytest.param("if True:\n    async def up(db): ...", ScriptKind.PLAIN, False, id="up is not at top level"),
        pytest.param("class A:\n    async def up(self, db): ...", ScriptKind.PLAIN, False, id="up is a method"),
        pytest.param("", ScriptKind.PLAIN, False, id="empty"),
    ],
)
def test_the_kind_follows_from_the_top_level(tmp_path: Path, text: str, kind: ScriptKind, reversible: bool) -> None:
    script = one(tmp_path, text)
    assert (script.kind, script.reversible) == (kind, reversible)


@pytest.mark.parametrize(
    ("text", "idempotent", "transactional"),
    [
        pytest.param(UP, True, False, id="left out"),
        pytest.param("IDEMPOTENT = False\n" + UP, False, False, id="not idempotent"),
        pytest.param("IDEMPOTENT: bool = False\n" + UP, False, False, id="with annotation"),
        pytest.param("IDEMPOTENT = True\nTRANSACTIONAL = False\n" + UP, True, False, id="said for clarity"),
        pytest.param("TRANSACTIONAL = True\nasync def up(db, session): ...", True, True, id="transactional"),
        pytest.param("IDEMPOTENT: bool\nx = [1 for IDEMPOTENT in ()]\n" + UP, True, False, id="bound to nothing there"),
    ],
)
def test_the_constants_are_read_without_running_the_file(
    tmp_path: Path, text: str, idempotent: bool, transactional: bool
) -> None:
    script = one(tmp_path, text)
    assert (script.idempotent, script.transactional) == (idempotent, transactional)


def test_no_script_is_run_by_looking_at_it(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    one(tmp_path, f"open({str(witness)!r}, 'w').close()\nraise RuntimeError('imported')")
    assert not witness.exists()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\xef\xbb\xbfx = '\xc3\xbc'\n", id="UTF-8 with BOM"),
        pytest.param(b"x = '\xc3\xbc'\n", id="UTF-8"),
        pytest.param(b"# -*- coding: latin-1 -*-\nx = '\xfc'\n", id="declared Latin-1"),
    ],
)
def test_a_file_is_read_as_python_reads_it(tmp_path: Path, raw: bytes) -> None:
    script = one(tmp_path, raw)
    assert read_source(script.path).endswith("x = 'ü'\n")


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), max_size=8)


@given(lines=st.lists(LINE, max_size=6), data=st.data())
def test_the_checksum_ignores_bom_line_ends_and_trailing_white_space(lines: list[str], data: st.DataObject) -> None:
    plain = "\n".join(lines)
    ends = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    trails = data.draw(st.lists(st.sampled_from(["", " ", "\t ", "  "]), min_size=len(lines), max_size=len(lines)))
    bom = data.draw(st.sampled_from(["", "\ufeff"]))
    tail = data.draw(st.sampled_from(["", ends, ends * 3, ends + "  " + ends]))
    changed = bom + ends.join(line + trail for line, trail in zip(lines, trails, strict=True)) + tail
    assert checksum(changed) == checksum(plain)


@given(first=st.lists(LINE, max_size=6), second=st.lists(LINE, max_size=6))
def test_the_checksum_differs_for_texts_that_differ_otherwise(first: list[str], second: list[str]) -> None:
    def seen(lines: list[str]) -> list[str]:
        stripped = [line.rstrip() for line in lines]
        while stripped and not stripped[-1]:
            stripped.pop()
        return stripped

    assert (checksum("\n".join(first)) == checksum("\n".join(second))) == (seen(first) == seen(second))


@pytest.mark.parametrize("changed", ["  x = 1\n", "\nx = 1\n", "x  = 1\n", "x = 1\n\n\ny = 2\n"])
def test_white_space_that_is_not_at_an_end_counts(changed: str) -> None:
    assert checksum(changed) not in (checksum("x = 1\n"), checksum("x = 1\ny = 2\n"))


def test_the_checksum_names_its_algorithm() -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", checksum(""))


@pytest.mark.parametrize(
    "text",
    ["async def _go(db): ...\nup = _go\n", "if True:\n    async def up(db): ...\n", "from mine import up\n"],
    ids=["assigned", "nested", "imported"],
)
def test_an_up_that_is_not_seen_is_warned_of(text: str, tmp_path: Path) -> None:
    (tmp_path / "001_hidden.py").write_text(text)
    found = discover(tmp_path)
    assert found.scripts[0].kind is ScriptKind.PLAIN
    assert "001_hidden.py has an `up` that is no `async def up(db)` at top level" in found.warnings[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("", (), id="absent"),
        pytest.param('REPLACES = ["001", "002"]', ("001", "002"), id="list"),
        pytest.param('REPLACES = ("1",)', ("1",), id="tuple"),
        pytest.param('REPLACES: list[str] = ["001"]', ("001",), id="annotated"),
    ],
)
def test_replaces_is_read_from_the_text(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "003_squash.py").write_text(f"{line}\nasync def up(db): ...\n")
    (script,) = discover(tmp_path).scripts
    assert script.replaces == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("REPLACES = []", "line 1: REPLACES must be written as", id="empty"),
        pytest.param('REPLACES = "001"', "line 1: REPLACES must be written as", id="a text"),
        pytest.param("REPLACES = [1, 2]", "line 1: REPLACES must be written as", id="numbers"),
        pytest.param('REPLACES = ["a"]', "line 1: REPLACES must be written as", id="no version"),
        pytest.param("REPLACES = [x]", "line 1: REPLACES must be written as", id="a name"),
        pytest.param("if True: REPLACES = ['001']", "REPLACES must be written as", id="nested"),
        pytest.param('REPLACES = ["003"]', "names 003, which does not come before it", id="itself"),
        pytest.param('REPLACES = ["001", "004"]', "names 004, which does not come before it", id="a later one"),
        pytest.param('REPLACES = ["1", "001"]', "names a version twice", id="twice"),
    ],
)
def test_replaces_of_another_form_is_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "003_squash.py").write_text(f"{line}\nasync def up(db): ...\n")
    with pytest.raises(ScriptsInvalid, match=said):
        discover(tmp_path)


def test_two_scripts_cannot_replace_one(tmp_path: Path) -> None:
    for number in (3, 4):
        (tmp_path / f"00{number}_squash.py").write_text('REPLACES = ["001"]\nasync def up(db): ...\n')
    with pytest.raises(ScriptsInvalid, match=r"003_squash\.py and 004_squash\.py both replace 001"):
        discover(tmp_path)
    (tmp_path / "005_all.py").write_text('REPLACES = ["003", "004"]\nasync def up(db): ...\n')
    assert len(discover(tmp_path).scripts) == 3
