"""
Define values: frozen, slotted, keyword-only dataclasses that are cheap to define. Pure.

``@dataclass(frozen=True, slots=True)`` writes six functions as text and compiles them, for each class and at each
start: 0.7 ms a class. For all our classes this was an eighth of a command with nothing to do. The functions below are
the same for every class and compiled once, so a class takes a twentieth of that. To create a value takes 0.5 µs more.
"""

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """
    Turn a class into a value. ``dataclasses.fields``, ``replace``, ``asdict``, ``pickle`` and ``match`` work as usual.

    Methods that the class defines are kept. A class without fields of its own may inherit those of another value.
    """
    own = {name for name in _METHODS if name in cls.__dict__}
    # `dataclass` would compile two more functions for `frozen=True`, and lets only frozen classes extend frozen ones.
    # So the class is marked as frozen afterwards, and the mark is removed while another value extends it.
    marks = [vars(base)["__dataclass_params__"] for base in cls.__mro__[1:] if "__dataclass_params__" in vars(base)]
    for mark in marks:
        mark.frozen = False
    try:
        made: Any = dataclass(init=False, repr=False, eq=False, kw_only=True, slots=True)(cls)
    finally:
        for mark in marks:
            mark.frozen = True
    made.__dataclass_params__.frozen = True
    for name, method in _METHODS.items():
        if name not in own:
            setattr(made, name, method)
    return made  # type: ignore[no-any-return]  # `slots=True` returns a new class


def _fields(instance: Any) -> dict[str, Field[Any]]:
    found: dict[str, Field[Any]] = instance.__dataclass_fields__
    return found


def _init(self: Any, **given: Any) -> None:
    put = object.__setattr__
    for name, one in _fields(self).items():
        if name in given:
            put(self, name, given.pop(name))
        elif one.default is not MISSING:
            put(self, name, one.default)
        elif one.default_factory is not MISSING:
            put(self, name, one.default_factory())
        else:
            raise TypeError(f"{type(self).__name__}() needs {name}=")
    if given:
        raise TypeError(f"{type(self).__name__}() does not take {', '.join(given)}=")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, one in _fields(self).items() if one.compare)


def _eq(self: Any, other: object) -> Any:
    if other is self:  # the usual case in a wait: the value has not changed
        return True
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, one in _fields(self).items() if one.repr)
    return f"{type(self).__qualname__}({shown})"


def _setattr(self: Any, name: str, to: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in _fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, to in zip(_fields(self), state, strict=True):
        object.__setattr__(self, name, to)


_METHODS = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}
