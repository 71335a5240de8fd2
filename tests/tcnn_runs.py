"""Runs of networks for five points with errors that are given, for tests of what TCNN's pages make of them."""

import numpy as np

from replicate.evidence.predictions import Predictions
from replicate.faces.sources import FaceSource

AFLW = FaceSource("mtfl", "test", "synthetic", "smoke")
ABOUT = {
    "device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5, "markup": "mtfl5",
}  # fmt: skip


def five_point_run(errors, **told):
    """A run with errors (N,) by their key; what is `told` of its heads is on its record."""
    about = ABOUT | {f"tweaking {name}": value for name, value in told.items()}
    names = tuple(f"face {number}" for number in range(len(next(iter(errors.values())))))
    return Predictions(
        "m",
        "toy",
        "synthetic",
        names,
        {name: np.asarray(own, float) for name, own in errors.items()},
        None,
        about,
    )
