"""Builders of the objects allowed in a pickle: arrays, tensors as arrays, plain containers, PyG's objects as bags."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from geoeq.data.pickles.interpreter import Name, Pending, check_key, refuse
from geoeq.data.ragged import Array

__all__ = ["BUILDERS", "NAMES", "STORAGES", "Bag", "build_tensor", "make_new"]

_DTYPE = re.compile(r"[?biuf]\d{0,2}|[SU]\d{1,4}")

#: Storage class of torch -> data type of numpy.
STORAGES: dict[Name, str] = {
    Name("torch", f"{kind}Storage"): dtype
    for kind, dtype in {
        "Double": "<f8",
        "Float": "<f4",
        "Half": "<f2",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "|i1",
        "Byte": "|u1",
        "Bool": "|b1",
    }.items()
}


class Bag:
    """An object of PyG in a file: the name of its class, and its attributes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._state: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        """Set the attributes from the state in the pickle: a dict, or a tuple of a dict and the slots."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self._state.update(part)
            elif part is not None:
                raise TypeError("the state of an object is not a dict")

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that are not None: those of the store (PyG 2), or of the object itself (PyG 1)."""
        store = self._state.get("_store")
        values = store._state.get("_mapping", {}) if isinstance(store, Bag) else self._state
        return {name: value for name, value in values.items() if isinstance(name, str) and value is not None}


def build_tensor(storage: Any, offset: Any, size: Sequence[int], stride: Sequence[int], *others: Any) -> Array:
    """Return the array of a tensor: a view into a flat ``storage`` with the shape ``size`` and strides ``stride``."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise TypeError("the storage of a tensor is invalid")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers) or len(size) > 16:
        raise ValueError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    empty = 0 in size
    # A stride of zero could expand one value to any size.
    if (not empty and last >= len(storage)) or int(np.prod(size, dtype=object)) > max(len(storage), 1):
        raise ValueError("a tensor reaches beyond its storage")
    if empty:
        return np.empty(tuple(size), storage.dtype)
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides)


def make_new(kind: Name, arguments: tuple[Any, ...]) -> Any:
    """Create an object of a class of PyG, without calling the class."""
    if kind == _GETTER:
        return Pending(lambda arguments: Bag(arguments[0].name))  # the class of a batch of Data
    if kind not in _BAGS or arguments:
        raise refuse(f"an object of '{kind}'")
    return Bag(kind.name)


def _reconstructor(kind: Any, base: Any, state: Any) -> Any:
    if not isinstance(kind, Name) or base != Name("builtins", "object"):
        raise TypeError("the class of a new object is invalid")
    return make_new(kind, ())


def _dtype(text: Any, *flags: Any) -> Pending:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise refuse("an array of objects" if text in ("O", "O8") else "an array of a type other than numbers or text")

    def finish(state: Any) -> np.dtype[Any]:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
            raise ValueError("an array has a structured type")
        return np.dtype(text).newbyteorder(order)

    return Pending(finish)


def _array(kind: Any, shape: Any, code: Any) -> Pending:
    def finish(state: Any) -> Array:
        _, size, dtype, fortran, content = state
        return _filled(content, dtype, size, "F" if fortran else "C")

    return Pending(finish)


def _filled(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise TypeError("an array has no type")
    flat = np.frombuffer(_bytes(content), dtype)
    if not isinstance(shape, tuple) or any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError("an array has an impossible shape")
    return flat.reshape(shape, order=order).copy()


def _bytes(content: Any) -> bytes:
    """Return the bytes of an array; Python 2 wrote them as text."""
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, (bytes, bytearray)):
        raise TypeError("the values of an array are not bytes")
    return bytes(content)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes that a protocol before 3 wrote as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes have an unknown encoding")
    return text.encode("latin-1")


def _plain(kind: type[Any]) -> Callable[..., Any]:
    def build(*arguments: Any) -> Any:
        (items,) = arguments or ((),)
        if not isinstance(items, (list, tuple)):
            raise TypeError("the items of a container are not a list")
        return kind(check_key(item) for item in items)

    return build


BUILDERS: Mapping[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): lambda items=(): {check_key(key): value for key, value in items},
    Name("collections", "defaultdict"): lambda factory=None: {},
    Name("builtins", "bytes"): lambda: b"",  # as the protocols before 3 write them
    Name("builtins", "set"): _plain(set),
    Name("builtins", "frozenset"): _plain(frozenset),
    Name("_codecs", "encode"): _encode,
    Name("copyreg", "_reconstructor"): _reconstructor,
    Name("numpy", "dtype"): _dtype,
    Name("numpy._core.multiarray", "_reconstruct"): _array,
    Name("numpy._core.multiarray", "scalar"): lambda dtype, content: _filled(content, dtype, (1,), "C")[0],
    Name("numpy._core.numeric", "_frombuffer"): _filled,
    Name("torch", "Size"): _plain(tuple),
    Name("torch", "device"): lambda *words: "cpu",
    Name("torch._utils", "_rebuild_tensor"): build_tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): build_tensor,
    Name("torch._utils", "_rebuild_parameter"): lambda tensor, *others: tensor,
}

_GETTER = Name("torch_geometric.data.batch", "DynamicInheritanceGetter")

_BAGS = frozenset(
    Name(f"torch_geometric.data.{module}", name)
    for module, names in {
        "data": "Data DataEdgeAttr DataTensorAttr",
        "batch": "Batch DataBatch",
        "storage": "BaseStorage GlobalStorage NodeStorage EdgeStorage",
    }.items()
    for name in names.split()
)

NAMES = frozenset(
    {
        _GETTER,
        Name("numpy", "ndarray"),
        *(Name("builtins", name) for name in ("dict", "list", "tuple", "int", "float", "str", "object")),
        *_BAGS,
        *STORAGES,
    }
)
