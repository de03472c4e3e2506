"""Pickles of plain data, read without running code from them: arrays of numbers in lists and dictionaries, and nothing else.

A pickle is a program: it may ask for any function of Python by name and call it. Here it is given none but those that NumPy's
own arrays ask for; whatever else it asks for is refused by its name, before it is called.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import IO, Any

import numpy

from ssvid.errors import DataError

# NumPy 2 calls its core ``numpy._core``; pickles of before name ``numpy.core``.
_CORES = ("numpy.core.", "numpy._core.")
_ALLOWED_OF_CORE = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_ALLOWED = ("numpy.ndarray", "numpy.dtype")


class _Refused(Exception):
    """The pickle asks for something that is not allowed; the text is its name."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of_latin1()
        wanted = f"{module}.{name}"
        if wanted in _ALLOWED:
            return getattr(numpy, name)
        core = next((core for core in _CORES if wanted.startswith(core)), "")
        if not core or wanted.removeprefix(core) not in _ALLOWED_OF_CORE:
            raise _Refused(wanted)
        place = "numpy._core" if int(numpy.__version__.partition(".")[0]) >= 2 else "numpy.core"
        return getattr(importlib.import_module(f"{place}.{module.removeprefix(core)}"), name)


def _bytes_of_latin1() -> Any:
    # Python 3 writes bytes so into pickles that Python 2 can read. A new function each time: a pickle can change it.
    def encode(text: str, encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise _Refused(f"_codecs.encode to {encoding}")
        return text.encode("latin1")

    return encode


def load_plain_pickle(path: Path, *, encoding: str = "ASCII") -> Any:
    """The content of a pickle that holds numbers, texts, bytes, NumPy arrays, and lists, tuples and dictionaries of them.

    Args:
        encoding: of texts that Python 2 wrote.

    Raises:
        DataError: it asks for anything else, which is named and not run; it is damaged, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return _load(file, encoding)
    except _Refused as cause:
        raise DataError(
            f"{path} asks to run {cause}, and a pickle is read here without running anything: it may hold numbers, texts and"
            " NumPy arrays in lists and dictionaries alone. Take the file of the publisher; nothing was run."
        ) from None
    except OSError as cause:
        raise DataError(f"{path} cannot be read: {cause.strerror or cause}. Name the pickle.") from cause
    except MemoryError as cause:
        raise DataError(
            f"{path} needs more memory than there is: a pickle is read whole. Use a machine with more, or fetch it again if"
            " its size is not that of the publisher."
        ) from cause
    except Exception as cause:  # what a damaged pickle raises cannot be told beforehand
        raise DataError(f"{path} is no whole pickle ({type(cause).__name__}: {cause}). Fetch it again.") from cause


def _load(file: IO[bytes], encoding: str) -> Any:
    return _PlainUnpickler(file, encoding=encoding).load()
