"""A change to code that decides weights must be seen: it raises the method's VERSION, or says that weights stay the same."""

import ast
import json
from pathlib import Path

import pytest

from replicate.files import sha256
from replicate.methods import (
    baselines,
    dan,
    ect,
    lddr,
    recognition,
    recognition_clusters,
    rnn,
    tcnn,
    tcnn_analysis,
)
from replicate.paths import root

FACES = ("faces/sources", "faces/markups", "faces/boxes", "faces/images")
SHARED = ("training", "geometry", "shapes", "networks", *FACES, "faces/augment", "faces/perturbations")
TCNN = ("methods/tcnn", "methods/tcnn_training", "methods/tcnn_augmentation", "methods/tcnn_heads")
METHODS = {
    "dan": (dan.VERSION, (*SHARED, "methods/dan", "methods/dan_training")),
    "ect": (
        ect.VERSION,
        (*SHARED, "metrics/landmarks", "methods/ect", "methods/ect_fitting", "methods/ect_training"),
    ),
    "lddr": (
        lddr.VERSION,
        (
            *SHARED,
            "faces/patches",
            "fractals",
            "regression",
            "methods/lddr",
            "methods/lddr_training",
        ),
    ),
    "rnn": (rnn.VERSION, (*SHARED, "metrics/landmarks", "methods/rnn", "methods/rnn_training")),
    "tcnn": (
        tcnn.VERSION,
        (*SHARED, "metrics/landmarks", *TCNN),
    ),
    "tcnn_analysis": (
        tcnn_analysis.VERSION,
        (*SHARED, "metrics/landmarks", *TCNN, "methods/tcnn_analysis"),
    ),
    "recognition": (
        recognition.VERSION,
        (
            *SHARED,
            "faces/people",
            "faces/verification",
            "methods/recognition",
            "methods/recognition_training",
        ),
    ),
    "recognition_clusters": (
        recognition_clusters.VERSION,
        (
            *SHARED,
            "faces/people",
            "methods/recognition",
            "methods/recognition_clusters",
            "methods/tcnn",
            "methods/tcnn_analysis",
        ),
    ),
    "baselines": (baselines.VERSION, (*FACES, "methods/baselines")),
}
RECORDED = Path(__file__).with_name("versions.json")


def digest(modules):
    """Of what the modules do: layout, comments and docstrings do not count."""
    trees = [ast.parse((root() / "replicate" / f"{name}.py").read_text(encoding="utf-8")) for name in modules]
    for tree in trees:
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                body[0].value = ast.Constant("")
    return sha256(*(ast.dump(tree) for tree in trees))[:16]


@pytest.mark.parametrize("method", METHODS)
def test_changed_training_code_is_noticed(method):
    version, modules = METHODS[method]
    assert json.loads(RECORDED.read_text())[method] == {"version": version, "digest": digest(modules)}, (
        f"code that decides the weights of {method} has changed. If trained weights can differ now, raise VERSION in "
        f"replicate/methods/{method}.py and record results again; in either case write the new digest {digest(modules)} to {RECORDED.name}"
    )


def test_the_digest_ignores_docstrings_and_sees_code(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.root", lambda: tmp_path)
    (tmp_path / "replicate").mkdir()
    seen = []
    for source in ('"""One."""\nx = 1  # a\n', '"""Two."""\n\nx = 1\n', '"""One."""\nx = 2\n'):
        (tmp_path / "replicate" / "m.py").write_text(source)
        seen.append(digest(["m"]))
    assert seen[0] == seen[1] != seen[2]
