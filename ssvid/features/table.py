"""A table of clips in one file: small columns, and features that never lie in memory as a whole."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssvid.errors import DataError
from ssvid.features.store import columns_of

FORMATS = (".npz", ".parquet")


@dataclass(frozen=True)
class ClipTable:
    """One row per clip.

    columns: all but the features, by name. widths: stage -> columns of its features. portions: the features of all stages
    side by side, in order, some rows at a time: (clips, width). metadata: plain values.
    """

    columns: Mapping[str, np.ndarray]
    widths: Mapping[str, int]
    portions: Callable[[], Iterator[np.ndarray]]
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def write(self, path: Path) -> None:
        """Write it in the format of the ending, one of ``FORMATS``. Same rows, same bytes."""
        (_write_npz if path.suffix == ".npz" else _write_parquet)(path, self)


def _write_npz(path: Path, table: ClipTable) -> None:
    """Plain arrays, one after the other; the features never lie in memory as a whole. Same rows, same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        arrays = {"metadata": np.array(json.dumps(table.metadata))} | dict(table.columns)
        for name, array in arrays.items():
            _add_array(archive, name, array, (np.ascontiguousarray(array),))
        for stage, (start, end) in columns_of(table.widths).items():
            outline = np.empty((len(table), end - start), dtype="<f4")  # never touched, so it takes no memory
            portions = (np.ascontiguousarray(portion[:, start:end]) for portion in table.portions())
            _add_array(archive, f"features_{stage}", outline, portions)


def _add_array(archive: zipfile.ZipFile, name: str, outline: np.ndarray, portions: Iterable[np.ndarray]) -> None:
    file: IO[bytes]
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(outline))
        for portion in portions:
            file.write(portion.tobytes())


def _write_parquet(path: Path, table: ClipTable) -> None:
    """The same columns, the features as fixed-size lists of float32; the metadata as JSON under the key ``ssvid``."""
    pyarrow = need_pyarrow()
    plain = {name: _parquet_column(pyarrow, array) for name, array in table.columns.items()}
    fields = [pyarrow.field(name, array.type) for name, array in plain.items()]
    fields += [pyarrow.field(f"features_{s}", pyarrow.list_(pyarrow.float32(), w)) for s, w in table.widths.items()]
    schema = pyarrow.schema(fields, metadata={"ssvid": json.dumps(table.metadata)})
    first = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for portion in table.portions():
            cells = [array.slice(first, len(portion)) for array in plain.values()]
            for start, end in columns_of(table.widths).values():
                flat = pyarrow.array(np.ascontiguousarray(portion[:, start:end]).reshape(-1))
                cells.append(pyarrow.FixedSizeListArray.from_arrays(flat, end - start))
            writer.write_table(pyarrow.table(cells, schema=schema))
            first += len(portion)


def _parquet_column(pyarrow: Any, array: np.ndarray) -> Any:
    if array.dtype.kind != "U":
        return pyarrow.array(array)
    # Names of files need not be UTF-8, and parquet's text must be.
    text = (str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in array)
    return pyarrow.array(list(text), type=pyarrow.string())


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file that ``embed_videos`` wrote."""
    path = Path(path)
    if path.suffix == ".parquet":
        return dict(json.loads(need_pyarrow().parquet.read_schema(path).metadata[b"ssvid"]))
    with np.load(path, allow_pickle=False) as arrays:
        return dict(json.loads(arrays["metadata"].item()))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a file that ``embed_videos`` wrote, by name."""
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "metadata"}
    table = need_pyarrow().parquet.read_table(path).combine_chunks()
    return {name: _array_of(table[name]) for name in table.column_names}


def _array_of(column: Any) -> np.ndarray:
    if hasattr(column.type, "list_size"):
        return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return np.array(column.to_pylist()) if str(column.type) == "string" else column.to_numpy()


def need_pyarrow() -> Any:
    """The package, or a DataError that says how to get it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"out: .parquet needs the package pyarrow ({error}). Install the extra: pip install 'ssvid[parquet]', or "
            "write .npz."
        ) from error
    return pyarrow
