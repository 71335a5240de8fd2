"""Speed of making and reading faces."""

import os
import tempfile
import time
from pathlib import Path

import cv2

from replicate.bench import Measurement
from replicate.bench.machine import rate
from replicate.devices import describe_device
from replicate.faces import synthetic
from replicate.faces.images import read_image, read_images

MANY, FEW, TO_READ = 960, 48, 64


def generate() -> Measurement:
    """Synthetic faces at 256 pixels with all cores, and one after another in one process."""
    cores = len(os.sched_getaffinity(0))
    synthetic.generate_many(0, range(2), workers=1)  # tables that are made once
    began = time.perf_counter()
    synthetic.generate_many(0, range(FEW), workers=1)
    alone = FEW / (time.perf_counter() - began)
    began = time.perf_counter()
    synthetic.generate_many(0, range(MANY), workers=cores)
    together = MANY / (time.perf_counter() - began)
    return Measurement(
        measures=f"{MANY} training faces of 256 x 256 pixels, starting the processes included; limit: {cores} times one process",
        value=together,
        unit="faces/s",
        peer="one process",
        peer_value=alone,
        limit=alone * cores,
        device=describe_device("cpu"),
        threads=cores,
    )


def read() -> Measurement:
    """Reading photographs from disk."""
    faces = synthetic.generate_many(1, range(4), size=512)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(TO_READ)]
        for i, path in enumerate(paths):
            cv2.imwrite(str(path), faces.images[i % 4])
        ours = rate(lambda: read_images(paths), TO_READ)
        naive = rate(lambda: [read_image(path) for path in paths], TO_READ)
    return Measurement(
        measures=f"{TO_READ} JPEG photographs of 512 x 512 pixels from disk to RGB",
        value=ours,
        unit="images/s",
        peer="one after another",
        peer_value=naive,
        device=describe_device("cpu"),
        threads=os.cpu_count() or 1,
    )
