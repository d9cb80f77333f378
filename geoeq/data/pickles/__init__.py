"""Read pickles and torch files without executing code: only tensors, arrays and plain containers are built.

``read_pickle`` accepts plain pickles and the files of ``torch.save``, old and new. Tensors are returned as NumPy
arrays, and objects of PyG as ``Bag``, which has the name of the class and the attributes. Anything else is refused.
"""

from __future__ import annotations

from geoeq.data.pickles.builders import Bag
from geoeq.data.pickles.torch_files import load_pickle, read_pickle

__all__ = ["Bag", "load_pickle", "read_pickle"]
