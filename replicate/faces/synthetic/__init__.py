"""Faces from nothing: a procedural generator of face photographs with exact 68-point labels.

A head is built from one control cage (:mod:`.template`), shaped by identity and expression (:mod:`.head`), painted (:mod:`.canvas`,
:mod:`.appearance`), dressed (:mod:`.hair`), posed and lit (:mod:`.scene`), drawn (:mod:`.raster`) before a background
(:mod:`.background`) and behind other things (:mod:`.occluders`), and photographed (:mod:`.sensor`). :mod:`.conditions` says how often
everything happens. No photograph and no scan goes in: proportions and spreads follow a small table of averages and quantiles of the
training landmarks of 300-W, and anthropometry (see :mod:`.template` and :mod:`.conditions`).

Examples
--------
>>> from replicate.faces.synthetic import generate
>>> face = generate(seed=0, index=7, condition="common")
>>> face.image.shape, face.points.shape
((256, 256, 3), (68, 2))
"""

from .batch import FaceBatch, generate_chunks, generate_many
from .generator import CONDITIONS, GENERATOR_VERSION, Face, draw, generate

__all__ = [
    "CONDITIONS",
    "GENERATOR_VERSION",
    "Face",
    "FaceBatch",
    "draw",
    "generate",
    "generate_chunks",
    "generate_many",
]
