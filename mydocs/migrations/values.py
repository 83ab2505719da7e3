"""
Define values: frozen, keyword-only dataclasses that are cheap to define and to create. Pure.

``@dataclass(frozen=True, slots=True)`` writes six functions as text and compiles them, for each class and at each
start: 0.7 ms a class. For all our classes this was an eighth of a command with nothing to do. The functions below are
the same for every class and compiled once. A value has no slots: its fields are set together, as its ``__dict__``,
which takes a third of the time of setting them one by one.
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
        made: Any = dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)
    finally:
        for mark in marks:
            mark.frozen = True
    made.__dataclass_params__.frozen = True
    fields = made.__dataclass_fields__
    made.__value_defaults__ = {name: one.default for name, one in fields.items() if one.default is not MISSING}
    made.__value_factories__ = [
        (name, one.default_factory) for name, one in fields.items() if one.default_factory is not MISSING
    ]
    for name, method in _METHODS.items():
        if name not in own:
            setattr(made, name, method)
    return cls


def _fields(instance: Any) -> dict[str, Field[Any]]:
    found: dict[str, Field[Any]] = instance.__dataclass_fields__
    return found


def _init(self: Any, **given: Any) -> None:
    state = {**self.__value_defaults__, **given}
    for name, make in self.__value_factories__:
        if name not in given:
            state[name] = make()
    if state.keys() != self.__dataclass_fields__.keys():
        raise TypeError(_mismatch(self, state))
    object.__setattr__(self, "__dict__", state)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _mismatch(self: Any, state: dict[str, Any]) -> str:
    missing = [name for name in _fields(self) if name not in state]
    if missing:
        return f"{type(self).__name__}() needs {missing[0]}="
    return f"{type(self).__name__}() does not take {', '.join(state.keys() - _fields(self).keys())}="


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


_METHODS = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
