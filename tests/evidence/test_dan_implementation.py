"""The page on DAN's implementation: its tables say what the configuration, the paper and the metrics say."""

import numpy as np
import pytest
from toy_faces import toy_faces

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import dan_implementation as views
from replicate.faces.sources import FaceSource
from replicate.methods.dan import CONFIGS, DANConfig

pytestmark = pytest.mark.usefixtures("drawing")


def experiment(**changes):
    return Experiment(**{"paper": "dan", "profile": "cpu", "device": "cpu", **changes})


def test_the_table_of_configurations_shows_what_differs_from_the_paper():
    table = views.config_table().set_index("field")
    assert list(table.columns) == ["paper", "smoke", "cpu, synthetic", "cpu, real", "gpu"]
    assert (table["gpu"] == "same").all() and (table["paper"] != "same").all()
    own = CONFIGS["cpu", "synthetic"]
    assert table.loc["batch", ["paper", "cpu, synthetic"]].tolist() == ["64", str(own.batch)]
    assert table.loc["samples", "cpu, synthetic"] == " / ".join(f"{n:,}" for n in own.samples)
    assert (
        table.loc["validation_faces", "cpu, synthetic"] == "same" and table.loc["decay", "paper"] == "False"
    )
    narrow = CONFIGS["cpu", "real"].narrow
    words = table.loc["narrow", "cpu, real"]
    assert (
        words.startswith(f"width {narrow.width}, samples")
        and f"after width {narrow.pretraining.width}" in words
    )


def test_images_made_of_the_training_faces_are_counted_by_both_readings():
    run = experiment()
    config = CONFIGS["cpu", "synthetic"]
    rows = views.augmentation_rows(run, config, run.source("300w", "train"))
    found = {(row.method, row.metric): row.value for row in rows}
    assert found["DAN, ten of each face", "augmented images"] == 30_480
    assert found["DAN, ten of each face and ten of its mirror image", "augmented images"] == 60_960
    own = "DAN, new ones at every step"
    assert found[own, "training images"] == 3148 - 100
    assert found[own, "samples at most, stage 2"] == config.samples[1]
    seen = config.samples[0] / 3048
    assert found["DAN, augmentation", "images per training image"] == pytest.approx(seen, rel=1e-5)


def test_samples_of_a_network_that_was_narrow_first_count_too_but_not_those_of_other_faces():
    narrow = DANConfig(samples=(30, 20), pretraining=DANConfig(samples=(1000, 1000)))
    assert views._samples(DANConfig(samples=(5, 4), narrow=narrow)) == [35, 24]
    assert views._samples(DANConfig(samples=(5, 4))) == [5, 4]


def test_augmented_images_are_of_one_generated_face_whatever_the_run(monkeypatch):
    asked = []

    def sample(source, count):
        asked.append(source)
        return toy_faces(count)

    monkeypatch.setattr(FaceSource, "sample", sample)
    config = CONFIGS["smoke", "real"]
    figure = views.augmented_faces(experiment(faces="real"), config, "as it is seen")
    assert [source.faces for source in asked] == ["synthetic"]
    shown = [ax.images[0].get_array() for ax in figure.axes]
    assert len(shown) == 10 and all(image.shape == (112, 112) for image in shown)
    assert len({np.asarray(image).tobytes() for image in shown}) == 10  # no two alike
    [made] = manifest.load("dan")
    assert made.artefact == "DAN-S8" and made.alt.startswith(
        "Augmented images of one generated face, as it is seen"
    )


def test_every_check_of_the_error_measures_holds_and_covers_both_ends():
    checks = views.metric_checks()
    np.testing.assert_allclose(checks["found, %"], checks["must be, %"], rtol=1e-9)
    assert {0, 8, 50, 100} == set(checks["must be, %"])


def test_the_checks_notice_a_metric_that_is_wrong(monkeypatch):
    monkeypatch.setattr(
        views, "auc", lambda errors, threshold: 100.2 * (np.asarray(errors) <= threshold).mean()
    )
    checks = views.metric_checks()
    assert not np.allclose(checks["found, %"], checks["must be, %"])


def test_facts_from_the_official_code_are_entries_that_name_it():
    facts = views.facts_from_official_code()
    named = facts["options"] + facts["choice"]
    assert {"DAN-A1", "DAN-A11"} <= set(facts["entry"]) and "DAN-A21" not in set(facts["entry"])
    assert named.str.contains("code").all()
