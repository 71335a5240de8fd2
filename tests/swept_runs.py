"""Runs with given errors at all settings of one quantity, for tests of sweeps."""

import numpy as np

from replicate.evidence.predictions import Predictions
from replicate.faces.sources import FaceSource

FACES = 30
NAMES = tuple(f"face {number}" for number in range(FACES))
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
HARD = FaceSource("300w", "challenging", "synthetic", "smoke")
OFFSETS = np.linspace(-1, 1, FACES)  # what each face's error differs from the mean


def one_run(mean=5.0, components=None, iterations=None):
    """A run whose mean errors are given, by the method itself and at its settings; all faces share their offsets."""
    means = {"inter-pupil": mean}
    means |= {f"inter-pupil, {setting} components": value for setting, value in (components or {}).items()}
    means |= {f"inter-pupil, {k} iterations": value for k, value in enumerate(iterations or ())}
    errors = {key: value + OFFSETS for key, value in means.items()}
    return Predictions("m", "toy", "synthetic", NAMES, errors, None, ABOUT | {"shape_components": 60})
