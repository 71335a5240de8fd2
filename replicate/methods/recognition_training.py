"""Training of the recogniser of TCNN §5.2, and the aligners that are compared; the pipeline itself is `recognition`.

All aligners share one recogniser. While it learns, each face is laid as an aligner that is drawn at random lays it, so that none is favoured. Generated
people: it learns from those of `casia`, none of whom is compared. Photographs: of each split of LFW, a recogniser that has learnt generated people goes on
with the people of the other nine folds, as the paper's went from objects to CASIA-WebFace.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.faces.augment import seeded
from replicate.faces.faceset import FaceSet
from replicate.faces.people import People
from replicate.faces.sources import FaceSource
from replicate.methods import baselines, recognition, tcnn, tcnn_training
from replicate.methods.baselines import SDM, MeanShape
from replicate.methods.recognition import AlignedFaces, Recogniser, RecogniserConfig
from replicate.store import ModelKey, StoredModel

BOX, CASCADE, VANILLA, TCNN = "box alone", "SDM", "vanilla CNN", "TCNN"
ALIGNERS = (BOX, CASCADE, VANILLA, TCNN)
LANDMARKS = ("mtfl", "train")  # what the aligners are trained on
LEARNT = ("casia", "train")  # whom the recogniser learns, none of them compared
# Our choice: share of the samples and of the step size of a recogniser that goes on with the people of a split.
FINE_TUNED = (0.3, 0.5)

Finder = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]  # images, boxes (N, 4) -> points (N, 5, 2)


@dataclass(frozen=True, eq=False)
class Aligners:
    """What lays faces straight.

    Attributes
    ----------
    find : dict of str to callable or None
        By `ALIGNERS`; None for the box alone.
    template : Tensor
        (5, 2), see `recognition.template`.
    models : tuple of str
        Hashes that name the models.
    """

    find: dict[str, Finder | None]
    template: Tensor
    models: tuple[str, ...]

    def points(self, faces: FaceSet) -> dict[str, np.ndarray | None]:
        """What each finds on some faces, (N, 5, 2) in pixels of the images."""
        return {name: find and find(faces.images, faces.boxes) for name, find in self.find.items()}

    def align(self, faces: FaceSet, **more: np.ndarray) -> AlignedFaces:
        """Faces as each aligner lays them, and as further points (N, 5, 2), such as the true ones, do."""
        return recognition.align(faces.images, faces.boxes, self.points(faces) | more, self.template)


def obtain_aligners(profile: str, faces: str, seed: int, device: str = "auto") -> Aligners:
    """All aligners, trained on the training faces of TCNN, from the model store; trained now where they are absent."""
    source = FaceSource(*LANDMARKS, faces, profile)
    config = tcnn.CONFIGS[profile]
    mean, mean_stored = baselines.obtain(MeanShape(), source, profile, seed)
    cascade, cascade_stored = baselines.obtain(SDM(baselines.SDM_CONFIGS[profile]), source, profile, seed)
    tweaked, stored = tcnn_training.obtain(config, source, profile, seed, device=device)

    def finder(model: tcnn.Model) -> Finder:
        return lambda images, boxes: tcnn_training.predict_boxes(model, images, boxes)

    return Aligners(
        {BOX: None, CASCADE: cascade.predict, VANILLA: finder(tweaked.network), TCNN: finder(tweaked)},
        recognition.template(torch.as_tensor(mean.shape_)),
        tuple(model.key.hash for model in (mean_stored, cascade_stored, *stored)),
    )


def aligner_hashes(profile: str, faces: str, seed: int) -> list[str]:
    """What names the models of `obtain_aligners`, without them."""
    source = FaceSource(*LANDMARKS, faces, profile)
    simple = [MeanShape(), SDM(baselines.SDM_CONFIGS[profile])]
    keys = [baselines.key(model, source, profile, seed) for model in simple]
    return [key.hash for key in (*keys, *tcnn_training.keys(tcnn.CONFIGS[profile], source, profile, seed))]


# The model store ----------------------------------------------------------------------------------------------------------------------------


def key(config: RecogniserConfig, profile: str, seed: int) -> ModelKey:
    """What names the recogniser that has learnt generated people."""
    described = asdict(config) | {"aligners": aligner_hashes(profile, "synthetic", seed)}
    del described["sanity_gate"]
    source = FaceSource(*LEARNT, "synthetic", profile)
    return ModelKey("recogniser", described, source.fingerprint, profile, seed, recognition.VERSION)


def obtain(
    config: RecogniserConfig, profile: str, seed: int, *, device: str = "auto", fresh: bool = False
) -> tuple[Recogniser, StoredModel]:
    """The recogniser that has learnt generated people, from the model store; trained now if it is absent.

    Aligners come from the store as they are: `fresh` does not train them again.
    """
    where = choose_device(device)

    def train(checkpoint: Path) -> store.Training:
        faces = FaceSource(*LEARNT, "synthetic", profile).load()
        aligned = obtain_aligners(profile, "synthetic", seed, device).align(faces)
        network = _new(config, faces.identity, seed)
        return _fit(network, config, aligned, faces.identity, seed, checkpoint, where, "generated people")

    model = store.get(key(config, profile, seed), train, fresh=fresh)
    return _network(config, model).to(where), model


def obtain_of_splits(
    config: RecogniserConfig,
    people: People,
    aligned: Callable[[], AlignedFaces],
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> list[tuple[Recogniser, StoredModel]]:
    """For each split of real people, a recogniser that has learnt generated people and then the split's training people.

    Parameters
    ----------
    config : RecogniserConfig
        Of the one that has learnt generated people, the start of all.
    aligned : callable
        Gives the faces of `people` as the aligners of real faces lay them; called only if something is trained.
    """
    where = choose_device(device)
    _, parent = obtain(config, profile, seed, device=device)
    own = fine_tuned(config)
    described = asdict(own) | {"aligners": aligner_hashes(profile, "real", seed)}
    del described["sanity_gate"]
    found = []
    for number, split in enumerate(people.splits):
        named = ModelKey(
            "recogniser-split", described | {"split": number}, people.fingerprint, profile, seed, recognition.VERSION, parent.key.hash
        )  # fmt: skip

        def train(checkpoint: Path, learnt=split.train, name=split.name) -> store.Training:
            identity = people.faces.identity[learnt]
            network = _new(own, identity, seed)
            kept = {name: value for name, value in parent.tensors.items() if not name.startswith("fc8")}
            network.load_state_dict(kept, strict=False)
            faces = chosen(aligned(), learnt)
            return _fit(network, own, faces, identity, seed, checkpoint, where, f"split {name}")

        model = store.get(named, train, parent=parent, fresh=fresh)
        found.append((_network(own, model).to(where), model))
    return found


def fine_tuned(config: RecogniserConfig) -> RecogniserConfig:
    """How a recogniser goes on with the people of a split."""
    samples, step_size = FINE_TUNED
    return replace(config, samples=round(samples * config.samples), step_size=step_size * config.step_size)


def chosen(faces: AlignedFaces, which: np.ndarray) -> AlignedFaces:
    """Some of the faces, by their numbers."""
    index, held = torch.as_tensor(which), faces.canvases
    canvases = replace(held, pixels=held.pixels[index], from_image=held.from_image[index])
    return AlignedFaces(canvases, {name: moves[index] for name, moves in faces.moves.items()})


def _new(config: RecogniserConfig, identity: np.ndarray, seed: int) -> Recogniser:
    torch.manual_seed(seed)
    return Recogniser(config, len(np.unique(identity)))


def _network(config: RecogniserConfig, model: StoredModel) -> Recogniser:
    network = Recogniser(config, len(model.tensors["fc8.bias"]))
    network.load_state_dict(model.tensors)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


# Training -----------------------------------------------------------------------------------------------------------------------------------


def held_out(identity: np.ndarray) -> np.ndarray:
    """(N,) bool: the last picture of each person, which validates; people with one picture have none."""
    last = {person: number for number, person in enumerate(identity)}
    several = np.bincount(np.unique(identity, return_inverse=True)[1]) > 1
    numbers = [number for (_, number), more in zip(sorted(last.items()), several, strict=True) if more]
    return np.isin(np.arange(len(identity)), numbers)


class Samples:
    """Batches, a function of (seed, step): aligned faces, each as an aligner drawn at random lays it, half of them mirrored.

    Parameters
    ----------
    faces : AlignedFaces
        N faces.
    labels : Tensor
        (N,) which person.
    learning : Tensor
        (M,) numbers of the faces to learn from.
    """

    def __init__(
        self, faces: AlignedFaces, labels: Tensor, learning: Tensor, config: RecogniserConfig, seed: int
    ) -> None:
        self.faces, self.labels, self.learning = faces, labels, learning
        self.config, self.seed = config, seed
        self.moves = torch.stack(list(faces.moves.values()))  # (A, N, 2, 3)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Aligned faces (batch, 3, 64, 64) and labels (batch,) of a step."""
        generator, batch = seeded(self.seed, step), self.config.batch
        index = self.learning[torch.randint(len(self.learning), (batch,), generator=generator)]
        aligner = torch.randint(len(self.moves), (batch,), generator=generator)
        mirrored = torch.rand(batch, generator=generator) < 0.5 * self.config.mirrored
        crops = self.faces.canvases.crops(index, self.moves[aligner, index])
        return torch.where(mirrored[:, None, None, None], crops.flip(-1), crops), self.labels[index]


def _fit(
    network: Recogniser,
    config: RecogniserConfig,
    faces: AlignedFaces,
    identity: np.ndarray,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    whom: str,
) -> store.Training:
    labels = torch.as_tensor(np.unique(identity, return_inverse=True)[1])
    out = torch.as_tensor(held_out(identity))
    network.to(device, memory_format=torch.channels_last)
    samples = Samples(faces, labels, (~out).nonzero()[:, 0], config, seed)
    checked = out.nonzero()[:, 0]
    aligner = torch.arange(len(checked)) % len(samples.moves)
    crops = faces.canvases.crops(checked, samples.moves[aligner, checked])

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(network(batch[0].to(device)), batch[1].to(device))

    @torch.inference_mode()
    def validate() -> float:
        network.eval()
        guessed = torch.cat([network(part.to(device)).argmax(1).cpu() for part in crops.split(256)])
        return 100 * (guessed != labels[checked]).float().mean().item()

    report = training.fit(
        network,
        samples,
        loss,
        validate,
        config.schedule,
        seed=seed,
        checkpoint=checkpoint,
        label=f"recogniser of {whom}, seed {seed}",
        must_beat=100 * (1 - 1 / len(network.fc8.bias)) if config.sanity_gate else None,
    )
    return network.state_dict(), report, describe_device(device)
