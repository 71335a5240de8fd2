"""Predictions of TCNN and of its vanilla network."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.tested.baseline import as_annotated
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn_training
from replicate.methods.tcnn import Model, TCNNConfig, VanillaConfig
from replicate.methods.tcnn_heads import Tweaking
from replicate.store import StoredModel

ONE_IMAGE = "inter-pupil, one image"  # key of the errors without the mirror images that §3.1 averages over
ONE_PIXEL = "inter-pupil, labels one pixel to the left and up"  # of MTFL's photographs


def test_vanilla(
    run: Experiment,
    config: VanillaConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
) -> list[Predictions]:
    """Runs of the vanilla network on `source`, one per training seed: averaged over image and mirror image, and `ONE_IMAGE`.

    Parameters
    ----------
    run : Experiment
        Says profile and device.
    points : bool
        Whether predicted points of generated faces are kept on record for the run's own seed, and not only the errors.
    """

    def test(seed: int) -> Predictions:
        def obtain() -> Trained:
            model, stored = tcnn_training.obtain_vanilla(
                config, train, run.profile, seed, device=run.device, fresh=run.fresh
            )
            return Trained(partial(_predict, model, train), [stored.report], train)

        key = tcnn_training.keys(TCNNConfig(config), train, run.profile, seed)[0]
        return run.test([key.hash], source, obtain, points=points and seed == run.seed)[0]

    return [test(seed) for seed in seeds]


def test_tcnn(
    run: Experiment,
    config: TCNNConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
) -> list[Predictions]:
    """Runs of the tweaked network on `source`, one per training seed; as `test_vanilla`.

    Their record tells what became of each cluster: ``"tweaking epochs"`` and so on for the fields of `tcnn_heads.Tweaking`, and the
    ``"tweaking seconds"`` beyond the vanilla network's training.
    """

    def test(seed: int) -> Predictions:
        def obtain() -> Trained:
            model, models = tcnn_training.obtain(
                config, train, run.profile, seed, device=run.device, fresh=run.fresh
            )
            return Trained(
                partial(_predict, model, train),
                store.reports(models)[-1:],
                train,
                about=_tweaking(models[-1]),
            )

        key = tcnn_training.keys(config, train, run.profile, seed)[-1]
        return run.test([key.hash], source, obtain, points=points and seed == run.seed)[0]

    return [test(seed) for seed in seeds]


def _tweaking(model: StoredModel) -> dict[str, list[float] | float]:
    told = Tweaking.of(model)._asdict().items()
    about = {f"tweaking {name}": [round(value, 6) for value in values.tolist()] for name, values in told}
    return about | {"tweaking seconds": round(model.report.seconds, 1)}


def _predict(model: Model, train: FaceSource, faces: FaceSet) -> list[Predicted]:
    shapes, alone = (
        as_annotated(tcnn_training.predict_faces(model, faces, mirror=mirror), train, faces)
        for mirror in (True, False)
    )
    more = {ONE_IMAGE: alone}
    # where the labels of its two lists count from is not documented
    if faces.faces == "real" and faces.protocol == "mtfl":
        more[ONE_PIXEL] = shapes + np.float32(1)
    return [Predicted(shapes, more=more)]
