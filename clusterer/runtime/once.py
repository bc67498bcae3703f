"""Parts of an object that are made on first use, and once, whatever threads ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

from clusterer.runtime import forks

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - a decorator, named like `property`
    """Like `functools.cached_property`, but with a lock, which that has not since Python 3.12.

    The value is kept in the object's ``__dict__`` under the method's name: later look-ups find it
    there and take no lock. A method that raises is called again by the next look-up.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__
        self._lock = forks.rlock()  # parts need other parts, also of their own kind

    @overload
    def __get__(self, owner: None, kind: type | None = None) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> T: ...
    def __get__(self, owner: object | None, kind: type | None = None) -> Self | T:
        """Return the value, made now if there is none yet."""
        if owner is None:
            return self
        with self._lock:
            parts = vars(owner)
            if self._name not in parts:
                parts[self._name] = self._make(owner)
            value: T = parts[self._name]
            return value
