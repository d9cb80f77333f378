"""An interpreter of pickles that imports nothing and calls only the builders passed to it.

Python's ``pickletools`` decodes the opcodes. A class or function in a pickle is pushed on the stack as a ``Name``. A
call is looked up in a table of builders by this name; any other name is refused.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import IO, Any, NamedTuple

from geoeq.errors import DataError

__all__ = ["Name", "Pending", "PickleInterpreter", "check_key", "refuse"]

#: Older names of modules of Python and numpy -> current names.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}

_LONGEST_NAME = 100

#: Errors of the decoder and the builders when a pickle is truncated or altered.
_ERRORS = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, StopIteration)


class Name(NamedTuple):
    """The name of a class or function in a pickle; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:_LONGEST_NAME]


class Pending:
    """An object that has been created but has no state yet; ``keys`` are its keys in the memo."""

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish
        self.keys: list[int] = []


def refuse(request: str) -> ValueError:
    """Return the error for a pickle that requires ``request``; the interpreter adds the name of the file."""
    return _RefusedError(
        f"it asks for {request}. Only tensors, arrays, plain containers and Data of PyG are read from a pickle, as "
        "anything else could run arbitrary code. Nothing was run. Do not trust this file."
    )


class _RefusedError(ValueError):
    pass


def _pushing(make: Callable[[PickleInterpreter], Any]) -> Callable[[PickleInterpreter, Any], None]:
    """Return the method of an opcode without argument that pushes the value of ``make`` on the stack."""

    def push(self: PickleInterpreter, argument: Any) -> None:
        self.stack.append(make(self))

    return push


class PickleInterpreter:
    """Interpreter of one pickle.

    Args:
        builders: name -> function that is called instead, with the arguments in the pickle.
        names: other names that are allowed as values.
        new: function that creates an object of a class without calling it.
        persistent: function that returns an object stored outside the pickle; None to refuse such objects.
    """

    def __init__(
        self,
        builders: Mapping[Name, Callable[..., Any]],
        names: frozenset[Name],
        new: Callable[[Name, tuple[Any, ...]], Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.builders, self.names, self.new, self.persistent = builders, names, new, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes], where: str) -> Any:
        """Read the pickle at the current position of ``file``, and return its object.

        Raises:
            DataError: the pickle is truncated or altered, or requires something other than data; the message begins
                with ``where``.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # invalid escapes in altered text
                return self._result(file)
        except _RefusedError as error:
            raise DataError(f"{where}: {error}") from error
        except _ERRORS as error:
            raise DataError(f"{where}: the pickle is truncated or altered ({str(error)[:_LONGEST_NAME]}).") from error

    def _result(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self.stack[-1]
            step = getattr(self, f"_{opcode.name.lower()}", None)
            if step is None:
                raise refuse(f"the opcode {opcode.name}")
            step(argument)
        raise ValueError("it has no end")

    # Each opcode has a method of its name; an opcode without a method is refused.

    def _proto(self, argument: Any) -> None:
        """Ignore the protocol version and the lengths of frames."""

    _frame = _proto

    def _literal(self, argument: Any) -> None:
        self.stack.append(argument)

    _int = _binint = _binint1 = _binint2 = _long = _long1 = _long4 = _float = _binfloat = _literal
    _string = _binstring = _short_binstring = _unicode = _binunicode = _short_binunicode = _binunicode8 = _literal
    _binbytes = _short_binbytes = _binbytes8 = _bytearray8 = _none = _literal

    _newtrue = _pushing(lambda self: True)
    _newfalse = _pushing(lambda self: False)
    _dup = _pushing(lambda self: self.stack[-1])

    def _pop(self, argument: Any) -> None:
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.stack.pop()

    def _mark(self, argument: Any) -> None:
        self.marks.append(len(self.stack))

    def _pop_mark(self, argument: Any) -> None:
        self._pop_marked()

    _empty_tuple = _pushing(lambda self: ())
    _empty_list = _pushing(lambda self: [])
    _empty_dict = _pushing(lambda self: {})
    _empty_set = _pushing(lambda self: set())
    _tuple = _pushing(lambda self: tuple(self._pop_marked()))
    _tuple1 = _pushing(lambda self: self._pop_items(1))
    _tuple2 = _pushing(lambda self: self._pop_items(2))
    _tuple3 = _pushing(lambda self: self._pop_items(3))
    _list = _pushing(lambda self: self._pop_marked())
    _dict = _pushing(lambda self: _pairs(self._pop_marked()))
    _frozenset = _pushing(lambda self: frozenset(check_key(key) for key in self._pop_marked()))

    def _append(self, argument: Any) -> None:
        item = self._pop_items(1)
        self._top(list).extend(item)

    def _appends(self, argument: Any) -> None:
        items = self._pop_marked()
        self._top(list).extend(items)

    def _additems(self, argument: Any) -> None:
        items = self._pop_marked()
        self._top(set).update(check_key(key) for key in items)

    def _setitem(self, argument: Any) -> None:
        items = self._pop_items(2)
        self._top(dict).update(_pairs(items))

    def _setitems(self, argument: Any) -> None:
        items = self._pop_marked()
        self._top(dict).update(_pairs(items))

    def _put(self, key: int) -> None:
        value = self.stack[-1]
        self.memo[key] = value
        if isinstance(value, Pending):
            value.keys.append(key)

    _binput = _long_binput = _put

    def _memoize(self, argument: Any) -> None:
        self._put(len(self.memo))

    def _get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    _binget = _long_binget = _get

    def _global(self, text: str) -> None:
        self.stack.append(self._checked_name(*text.split(" ", 1)))

    def _stack_global(self, argument: Any) -> None:
        self.stack.append(self._checked_name(*self._pop_items(2)))

    def _reduce(self, argument: Any) -> None:
        called, arguments = self._pop_items(2)
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments are not a tuple")
        if isinstance(called, Pending):
            self.stack.append(called.finish(arguments))
        elif isinstance(called, Name) and called in self.builders:
            self.stack.append(self.builders[called](*arguments))
        else:
            raise refuse(f"a call of '{called}'" if isinstance(called, Name) else "a call of an object")

    def _newobj(self, argument: Any) -> None:
        kind, arguments = self._pop_items(2)
        if not (isinstance(kind, Name) and isinstance(arguments, tuple)):
            raise TypeError("the class of a new object is invalid")
        self.stack.append(self.new(kind, arguments))

    def _build(self, argument: Any) -> None:
        (state,) = self._pop_items(1)
        target = self.stack[-1]
        if isinstance(target, Pending):
            self.stack[-1] = target.finish(state)
            for key in target.keys:
                self.memo[key] = self.stack[-1]
        elif hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict):  # attributes of a dict, such as _metadata of torch, are ignored
            raise refuse("a state for an object that has none")

    def _binpersid(self, argument: Any) -> None:
        (key,) = self._pop_items(1)
        if self.persistent is None:
            raise refuse("an object outside the pickle")
        self.stack.append(self.persistent(key))

    def _checked_name(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name is not text")
        known = Name(_RENAMED.get(module, module), name)
        if known not in self.builders and known not in self.names:
            raise refuse(f"'{known}'")
        return known

    def _pop_marked(self) -> list[Any]:
        """Pop all items above the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _pop_items(self, count: int) -> tuple[Any, ...]:
        """Pop the last ``count`` items."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"the top of the stack is not a {kind.__name__}")
        return self.stack[-1]


def _pairs(items: Sequence[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key has no value")
    return {check_key(key): value for key, value in zip(items[::2], items[1::2])}


def check_key(key: Any) -> Hashable:
    """Return ``key`` if it is a number, text, None or a flat tuple of them; hashing a deep tuple could take forever."""
    for item in key if isinstance(key, tuple) else (key,):
        if not isinstance(item, (str, bytes, int, float, type(None))):
            raise TypeError("a key is neither a number nor text")
    return key  # type: ignore[no-any-return]
