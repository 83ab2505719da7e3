"""A value behaves as the frozen dataclass that it stands for."""

import copy
import dataclasses
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mydocs
from mydocs.migrations.values import value


@value
class Point:
    x: int
    y: int = 0
    seen: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def sum(self) -> int:
        return self.x + self.y


@value
class Named(Point):
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    x: int
    y: int = 0
    seen: list[str] = field(default_factory=list, compare=False, repr=False)


@pytest.mark.parametrize("make", [Point, Model])
def test_it_is_made_compared_shown_and_hashed_like_a_dataclass(make: Any) -> None:
    one, same, other = make(x=1), make(x=1, y=0, seen=["a"]), make(x=2)
    assert one == same
    assert one != other
    assert one != (1, 0)
    assert hash(one) == hash(same)
    assert repr(one).partition("(")[2] == "x=1, y=0)"
    assert one.seen is not make(x=1).seen


@pytest.mark.parametrize("make", [Point, Model])
def test_it_does_not_change(make: Any) -> None:
    one = make(x=1)
    with pytest.raises(FrozenInstanceError):
        one.x = 2
    with pytest.raises(FrozenInstanceError):
        del one.x
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        one.z = 3
    assert dataclasses.replace(one, y=5) == make(x=1, y=5)


@pytest.mark.parametrize("make", [Point, Model])
def test_wrong_fields_are_refused_by_name(make: Any) -> None:
    with pytest.raises(TypeError, match="x"):
        make()
    with pytest.raises(TypeError, match="z"):
        make(x=1, z=2)
    with pytest.raises(TypeError):
        make(1)


def test_it_is_a_dataclass_and_travels() -> None:
    named = Named(x=1, y=2, name="n")
    assert dataclasses.is_dataclass(named)
    assert [one.name for one in dataclasses.fields(named)] == ["x", "y", "seen", "name"]
    assert dataclasses.asdict(named) == {"x": 1, "y": 2, "seen": [], "name": "n"}
    assert pickle.loads(pickle.dumps(named)) == named == copy.deepcopy(named)
    assert named.sum == 3
    assert named != Point(x=1, y=2)


def test_an_application_may_extend_it_as_a_frozen_dataclass() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Theirs(Point):
        colour: str

    assert Theirs(x=1, colour="red").x == 1


def test_what_a_class_defines_itself_stays() -> None:
    @value
    class Shown:
        x: int

        def __repr__(self) -> str:
            return "shown"

    assert repr(Shown(x=1)) == "shown"


def test_it_may_complete_itself() -> None:
    @value
    class Sum:
        parts: tuple[int, ...]
        made: list[int] = field(init=False, default_factory=list)

        def __post_init__(self) -> None:
            self.made.append(sum(self.parts))

    assert Sum(parts=(1, 2)).made == [3]


def test_every_value_of_the_house_is_made_by_this() -> None:
    """`@dataclass` alone remains for what changes."""
    house = Path(mydocs.__file__).parent
    frozen = re.compile(r"^@dataclass\(.*frozen=True", re.MULTILINE)
    others = [
        str(file.relative_to(house))
        for room in ("cli", "migrations", "preview")
        for file in (house / room).rglob("*.py")
        if frozen.search(file.read_text())
    ]
    assert others == []
