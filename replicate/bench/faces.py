"""Speed of making, storing, reading and augmenting faces."""

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from replicate.bench import Measurement
from replicate.bench import dan as dan_bench
from replicate.bench.machine import rate
from replicate.devices import describe_device
from replicate.faces import face_store, synthetic
from replicate.faces.augment import Samples
from replicate.faces.faceset import FaceSet
from replicate.faces.images import read_images, to_grey
from replicate.faces.protocols import PROTOCOLS, Protocol, Split, person_of, synthetic_count
from replicate.geometry import compose
from replicate.methods import dan
from replicate.shapes import mean_shape

MANY, FEW = 960, 48
SHARE, LEAST = 60, 128  # of the faces of a split that are made, one in so many, but no fewer than these
BATCH, STORED, DIFFERENT = 64, 1024, 32


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


def protocols() -> Measurement:
    """The generated counterparts of all official splits at the `cpu` profile, from a share of each."""
    cores = len(os.sched_getaffinity(0))
    total, seconds = 0, 0.0
    for protocol, split in (leaf for name, about in PROTOCOLS.items() for leaf in _own(name, about)):
        count = synthetic_count(protocol, split, "cpu")
        total += count
        seconds += count * _seconds_a_face(PROTOCOLS[protocol].splits[split], count)
    return Measurement(
        measures=f"the {total:,} faces of all official splits at cpu counts, from one in {SHARE} of each split, starting the processes left out: "
        f"{seconds / 60:.1f} minutes",
        value=total / seconds,
        unit="faces/s",
        device=describe_device("cpu"),
        threads=cores,
    )


def _own(protocol: str, about: Protocol) -> list[tuple[str, str]]:
    """Its splits that are no unions and have an official counterpart."""
    return [(protocol, name) for name, split in about.splits.items() if split.real]


def _seconds_a_face(split: Split, count: int) -> float:
    """Time between the first and the last chunk, over the faces between them."""
    indices = range(split.first, split.first + max(LEAST, count // SHARE))
    people = [person_of(split, index) for index in indices] if split.identities else None
    made = synthetic.generate_chunks(0, indices, split.condition, size=split.size, identities=people)
    first = len(next(made).points)
    began = time.perf_counter()
    for _ in made:
        pass
    return (time.perf_counter() - began) / (len(indices) - first)


def read() -> Measurement:
    """Random batches from the face store."""
    with tempfile.TemporaryDirectory() as folder:
        images = _store(Path(folder) / "store").images
        paths = [Path(folder) / f"{i}.jpg" for i in range(BATCH)]
        for path, image in zip(paths, images, strict=False):
            cv2.imwrite(str(path), image)
        rng = np.random.default_rng(0)
        ours = rate(lambda: images.batch(rng.integers(len(images), size=BATCH)), BATCH)
        decoded = rate(lambda: read_images(paths), BATCH)
    return Measurement(
        measures=f"random batch of {BATCH} of {STORED} faces of 256 x 256 pixels in colour from the face store, in the computer's file cache: "
        f"{1000 * BATCH / ours:.2f} ms",
        value=ours,
        unit="faces/s",
        peer=f"decoding {BATCH} JPEG files in threads",
        peer_value=decoded,
        device=describe_device("cpu"),
        threads=1,
    )


def open_again() -> Measurement:
    """Opening a face store that has been opened before."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        _store(store)
        ours = rate(lambda: face_store.open_store(store), 1, 1.0)
        whole = rate(lambda: np.fromfile(store / "pixels.bin", np.uint8), 1, 1.0)
    return Measurement(
        measures=f"second opening of a store of {STORED} faces of 256 x 256 pixels in colour, its labels checked: {1000 / ours:.1f} ms",
        value=ours,
        unit="openings/s",
        peer="reading all its pixels into memory",
        peer_value=whole,
        device=describe_device("cpu"),
        threads=1,
    )


def _store(folder: Path) -> face_store.Stored:
    """A store of a few different faces, each many times."""
    made = synthetic.generate_many(1, range(DIFFERENT), workers=1)
    labels = {"points": made.points, "visible": made.visible, **made.attributes}
    face_store.make(folder, lambda done: [(made.images, labels)] * ((STORED - done) // DIFFERENT))
    return face_store.open_store(folder)


def augment() -> Measurement:
    """Augmented batches as DAN trains on them, as a share of its training step."""
    config = dan.CONFIGS["cpu", "synthetic"]
    faces = dan_bench.faces()
    mean = mean_shape(torch.as_tensor(faces.points))
    samples = Samples(faces, mean, config.frame, config.perturbation, config.batch, seed=0)
    pixels = torch.full((2, config.input_size, config.input_size), 0.5)
    network = dan.DAN(config, 1, config.frame.canonical(mean), *pixels)
    step = dan_bench.step(network.to(memory_format=torch.channels_last), network, samples)
    ours = rate(lambda: samples(0), config.batch)
    trained = rate(step, config.batch, 4.0)
    return Measurement(
        measures=f"batches of {config.batch} grey crops of {config.input_size} x {config.input_size} pixels, moved and mirrored: {trained / ours:.1%} of a "
        f"training step of DAN's first stage at width {config.width} ({1000 * config.batch / trained:.0f} ms)",
        value=ours,
        unit="samples/s",
        peer="one photograph after another with OpenCV",
        peer_value=rate(lambda: _one_by_one(faces, samples), config.batch),
        device=describe_device("cpu"),
        threads=torch.get_num_threads(),
    )


def _one_by_one(faces: FaceSet, samples: Samples) -> list[np.ndarray]:
    """A batch of augmented crops from the photographs, without canvases and batches."""
    frame = samples.canvases.frame
    moves = samples.perturbation.sample(samples.batch, frame, torch.Generator().manual_seed(0))
    transforms = compose(moves, samples.canvases.from_image[: samples.batch]).numpy()
    crops = []
    for number, (image, transform) in enumerate(zip(faces.images, transforms, strict=True)):
        crop = cv2.warpAffine(
            to_grey(image), transform, (frame.size, frame.size), borderMode=cv2.BORDER_REPLICATE
        )
        crops.append((crop[:, ::-1] if number % 2 else crop).astype(np.float32) / 255)
    return crops
