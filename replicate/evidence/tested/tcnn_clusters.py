"""Which cluster of TCNN each face belongs to, beside the errors of TCNN and of its vanilla network: what Fig. 6 compares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from replicate import store
from replicate.evidence import predictions
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import errors_of, scores_of
from replicate.evidence.tested.baseline import as_annotated
from replicate.evidence.tested.tcnn import ONE_IMAGE
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn_augmentation, tcnn_training
from replicate.methods.tcnn import TCNNConfig, Tweaked

VALIDATION = "validation"  # the part of the training faces that validates, as subsets of rows name it
VANILLA, VANILLA_ONE_IMAGE = "inter-pupil, vanilla", "inter-pupil, vanilla, one image"
FRONTAL = 3  # among MTFL's five poses


@dataclass(frozen=True, eq=False)
class Clustered:
    """One tweaked network on N faces.

    Attributes
    ----------
    run : Predictions
        Its errors are those of TCNN, and by `VANILLA` those of its vanilla network, averaged over image and mirror image; and both
        from one image, by `ONE_IMAGE` and `VANILLA_ONE_IMAGE`.
    cluster : array
        (N,) int: to which each face belongs, by its image, not the mirrored one.
    clusters : int
        K.
    pose : array or None
        (N,) MTFL's five poses, 1 and 5 the profiles; None where they are not known.
    """

    run: Predictions
    cluster: np.ndarray
    clusters: int
    pose: np.ndarray | None

    @property
    def turned(self) -> np.ndarray | None:
        """(N,) bool: the faces that are not frontal."""
        return None if self.pose is None else self.pose != FRONTAL


def test_clusters(
    run: Experiment, config: TCNNConfig, train: FaceSource, source: FaceSource, seeds: Sequence[int] = (0,)
) -> list[Clustered]:
    """A tweaked network on faces whose clusters matter, one per training seed: from the record, else from the model store, else trained now.

    Parameters
    ----------
    source : FaceSource
        The faces; of `train` itself, those that validate.

    Notes
    -----
    The models are those of `test_tcnn`, which trains them again where the experiment asks for it; here they are only asked again.
    """
    return [_test(run, config, train, source, seed) for seed in seeds]


def _test(run: Experiment, config: TCNNConfig, train: FaceSource, source: FaceSource, seed: int) -> Clustered:
    model = tcnn_training.keys(config, train, run.profile, seed)[-1].hash
    split = VALIDATION if source == train else source.split
    name = f"clusters-{source.protocol}-{split}-{run.faces}-{source.fingerprint[:8]}"
    file = predictions.path_of(model, name, run.paper, run.profile)
    if file.exists() and not run.fresh:
        found = predictions.read(file)
    else:
        found = _predicted(run, config, train, _faces(train, source), seed)
        found = replace(found, model=model, testset=name)
        predictions.save(found, run.paper, run.profile)
    pose = found.provenance.get("pose")
    if pose is None and run.faces == "real":  # annotations of photographs are nobody's to publish
        pose = _faces(train, source).attributes.get("pose")
    cluster = np.array(found.provenance["cluster"], int)
    return Clustered(found, cluster, config.clusters, None if pose is None else np.asarray(pose))


def _faces(train: FaceSource, source: FaceSource) -> FaceSet:
    faces = source.load()
    return faces.subset(tcnn_training.held_out(len(faces)), VALIDATION) if source == train else faces


def _predicted(
    run: Experiment, config: TCNNConfig, train: FaceSource, faces: FaceSet, seed: int
) -> Predictions:
    model, models = tcnn_training.obtain(config, train, run.profile, seed, device=run.device)
    told = {"cluster": clusters_of(model, faces).tolist()}
    if faces.faces == "synthetic":
        told["pose"] = faces.attributes["pose"].tolist()

    def predict(which, mirror: bool) -> np.ndarray:
        found = tcnn_training.predict_faces(which, faces, mirror=mirror)
        return as_annotated(found, train, faces)

    more = {
        ONE_IMAGE: predict(model, False),
        VANILLA: predict(model.network, True),
        VANILLA_ONE_IMAGE: predict(model.network, False),
    }
    found = Predicted(predict(model, True), more=more)
    [about] = Trained(lambda _: [found], store.reports(models)[-1:], train, about=told).provenance(
        faces, run.device
    )
    errors = errors_of(found, faces, scores_of(faces.markup))
    return Predictions("model", "faces", run.faces, faces.names, errors, None, about)


@torch.inference_mode()
def clusters_of(model: Tweaked, faces: FaceSet) -> np.ndarray:
    """Eq. 2: the cluster (N,) of each face."""
    framed = tcnn_training.framed(faces, model.network.mean.device)
    found = [
        model.mixture.assign(model.network.features(crops, model.heads.split))
        for crops in tcnn_augmentation.plain_crops(framed)
    ]
    return torch.cat(found).cpu().numpy()
