"""Matlab files of both kinds: up to version 7.2 through scipy, version 7.3 (which is HDF5) through h5py.

Both come out alike: numbers as arrays in Matlab's orientation, text as `str`, cells as arrays of type object that hold such values,
single structures as `dict`; arrays of structures are refused. Nothing in a file is executed, and nothing outside it is read: links and
data kept in other files are refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from replicate.errors import ReplicateError
from replicate.faces.real.mat5 import check_mat5
from replicate.faces.real.reading import require

LARGEST_ARRAY = 2**31  # bytes of one array; beyond it a header is damaged or hostile
Value = np.ndarray | str | dict  # what a variable, an element of a cell or a field of a structure holds


def load_matlab(path: Path, names: Sequence[str]) -> dict[str, Value]:
    """Read variables whole.

    Raises
    ------
    ReplicateError
        Naming the file, if it is absent, damaged, of another format, or lacks a variable.
    """
    with _opened(path, names) as file:
        if isinstance(file, h5py.File):
            return {name: _from_hdf5(file, file[name]) for name in names}
        found = scipy.io.loadmat(path, variable_names=list(names))
        return {name: _from_scipy(path, found[name]) for name in names}


def open_cell(path: Path, name: str) -> tuple[int, Callable[[int], Value]]:
    """A cell array whose elements are read one by one, for images.

    Returns
    -------
    count : int
        Elements in Matlab's (column) order.
    read : callable
        `read(i)` gives element i. A file before version 7.3 cannot be read in parts: its first call reads the whole cell and keeps it.

    Raises
    ------
    ReplicateError
        As `load_matlab`; from `read` too.
    """
    with _opened(path, [name]) as file:
        if isinstance(file, h5py.File):
            if not isinstance(file[name], h5py.Dataset) or not h5py.check_ref_dtype(file[name].dtype):
                raise ReplicateError(f"{path}: {name} is no cell array; expected one image in each cell")
            return file[name].size, lambda index: _hdf5_element(path, name, index)
        shape = next(shape for found, shape, _ in scipy.io.whosmat(path) if found == name)
    whole = cache(lambda: load_matlab(path, [name])[name].ravel(order="F"))
    return int(np.prod(shape)), lambda index: whole()[index]


@contextmanager
def _opened(path: Path, names: Sequence[str]) -> Iterator[h5py.File | None]:
    """The HDF5 file, or None for older ones; whatever goes wrong inside becomes an error that names the file."""
    require(path, "Matlab file")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                present = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
                _require_variables(path, names, [name for name in present if not name.startswith("#")])
                yield file
        else:
            check_mat5(path, names)
            _require_variables(path, names, [name for name, *_ in scipy.io.whosmat(path)])
            yield None
    except ReplicateError:
        raise
    except Exception as error:  # both readers raise a dozen types for damaged files, zlib.error to IndexError
        raise ReplicateError(
            f"{path}: cannot be read as a Matlab file ({type(error).__name__}: {error}); restore it from its source"
        ) from error


def _require_variables(path: Path, names: Sequence[str], present: Sequence[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise ReplicateError(
            f"{path}: no variable {', '.join(missing)}; it has {', '.join(present) or 'none'}, expected {', '.join(names)}"
        )


def _hdf5_element(path: Path, name: str, index: int) -> Value:
    with _opened(path, [name]) as file:
        return _from_hdf5(file, file[file[name][()].ravel()[index]])  # HDF5 keeps Matlab's column order


def _from_hdf5(file: h5py.File, node: h5py.Dataset | h5py.Group) -> Value:
    if isinstance(node, h5py.Group) and node.attrs.get("MATLAB_class") == b"struct":
        fields = [field for field in node if isinstance(node.get(field, getlink=True), h5py.HardLink)]
        return {field: _from_hdf5(file, node[field]) for field in fields}
    if not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
        raise ReplicateError(f"{file.filename}: {node.name} is no array inside the file; restore the file")
    is_text = node.attrs.get("MATLAB_class") == b"char"
    if node.attrs.get("MATLAB_empty"):  # then the data are the sizes
        return "" if is_text else np.empty((0, 0))
    if node.size * node.dtype.itemsize > LARGEST_ARRAY:
        raise ReplicateError(
            f"{file.filename}: {node.name} has {node.size} elements, expected at most {LARGEST_ARRAY >> 30} GiB; restore the file"
        )
    data = node[()]
    if h5py.check_ref_dtype(node.dtype):
        cell = np.empty(data.shape, object)
        for index, reference in np.ndenumerate(data):
            cell[index] = _from_hdf5(file, file[reference])
        return cell.T
    if is_text:
        return np.asarray(data, "<u2").tobytes().decode("utf-16-le")
    return np.asarray(data).T


def _from_scipy(path: Path, value: np.ndarray) -> Value:
    if value.dtype == object:
        cell = np.empty(value.shape, object)
        for index, element in np.ndenumerate(value):
            cell[index] = _from_scipy(path, element)
        return cell
    if value.dtype.names:
        if value.size != 1:
            raise ReplicateError(
                f"{path}: an array of {value.size} structures, expected single ones; restore the file"
            )
        return {field: _from_scipy(path, value[field].flat[0]) for field in value.dtype.names}
    if value.dtype.kind == "U" and value.size < 2:
        return "".join(value.ravel())
    return value
