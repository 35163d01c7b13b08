"""Pickles of numbers and arrays, read without running any code that they might ask for."""

from __future__ import annotations

import io
import pickle
from typing import Any

# What builds arrays and numbers of NumPy from data, and nothing that can run code; older files name other modules.
BUILDERS = {
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "_codecs": {"encode"},
}


def read_pickle(content: bytes, origin: str, encoding: str = "ASCII") -> Any:
    """Read dicts, lists, texts, numbers and arrays, and refuse all else.

    Parameters
    ----------
    content : bytes
        The pickle.
    origin : str
        How errors begin, such as "a.pkl is not readable".
    encoding : str
        Of texts that Python 2 wrote; "bytes" leaves them as bytes.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the pickle is damaged or asks for anything else.

    Examples
    --------
    >>> read_pickle(pickle.dumps({"a": [1, 2.5]}), "a.pkl is not readable")
    {'a': [1, 2.5]}
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding=encoding).load()
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(f"{origin}: {error or type(error).__name__}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        if name not in BUILDERS.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which numbers and arrays do not need")
        return super().find_class(module, name)
