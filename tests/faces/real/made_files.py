"""Small files in the formats of the data sets, and where the real ones are."""

import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from replicate import paths
from replicate.errors import ReplicateError

_NUMBERS = count()  # of elements of cells, whose names must differ


def real_folder(name: str) -> Path:
    """The real data set `name`, where this machine has it; otherwise the test is skipped."""
    places = [paths.root().parent / "shared" / "faces"]
    if os.environ.get("REPLICATE_DATA"):
        places.insert(0, paths.data_dir())
    for place in places:
        if (place / name).is_dir():
            return place / name
    pytest.skip(f"neither $REPLICATE_DATA nor ../shared/faces has {name}/")


def write_image(path: Path, width: int = 60, height: int = 50) -> Path:
    """A noise image in colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(7).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_hdf5(path: Path, **variables: object) -> Path:
    """A Matlab 7.3 file: arrays transposed, text as UTF-16 units, cells (arrays of type object) as references, structures as groups."""
    with h5py.File(path, "w", userblock_size=512) as file:
        elements = file.create_group("#refs#")
        for name, value in variables.items():
            _put(file, name, value, elements)
    return path


def _put(place: h5py.Group, name: str, value: object, elements: h5py.Group) -> h5py.Dataset | h5py.Group:
    if isinstance(value, str):
        units = np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1)
        node, kind = place.create_dataset(name, data=units), "char"
    elif isinstance(value, np.ndarray) and value.dtype == object:
        references = np.empty(value.shape, h5py.ref_dtype)
        for index, element in np.ndenumerate(value):
            references[index] = _put(elements, f"element{next(_NUMBERS)}", element, elements).ref
        node, kind = place.create_dataset(name, data=references.T, dtype=h5py.ref_dtype), "cell"
    elif isinstance(value, dict):
        node, kind = place.create_group(name), "struct"
        for field, inner in value.items():
            _put(node, field, inner, elements)
    else:
        node, kind = place.create_dataset(name, data=np.asarray(value).T), "double"
    node.attrs["MATLAB_class"] = np.bytes_(kind)
    return node


def cell(*elements: object, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A Matlab cell: a row unless `shape` says otherwise."""
    made = np.empty(len(elements), object)
    made[:] = elements
    return made.reshape(shape or (1, -1))


def returns_or_refuses(parse: Callable[[], object], names: Sequence[str]) -> None:
    """Whatever the input, `parse` returns or raises `ReplicateError` that names one of the files."""
    try:
        parse()
    except ReplicateError as error:
        assert any(name in str(error) for name in names), error
