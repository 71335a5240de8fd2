"""The `replicate` command: JSON alone on standard output, exit statuses, messages that help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from contract_keys import RESULT_KEYS, VERDICT_KEYS

from replicate import store
from replicate.faces.synthetic import generate
from replicate.paths import root
from replicate.store import ModelKey
from replicate.training import FitReport

CACHE = os.environ.get("REPLICATE_CACHE") or str(root() / ".replicate" / "test")


def replicate(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "COLUMNS": "200", "REPLICATE_CACHE": CACHE, **environment}
    command = [sys.executable, "-m", "replicate.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=root(), timeout=300)


def rows(*arguments: str, **environment: str) -> list[dict]:
    done = replicate(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STATES = {"done", "partial", "missing", "data absent", "not applicable"}


class TestContract:
    def test_artefacts(self):
        found = rows("artefacts")
        assert len(found) == len({a["id"] for a in found}) == 206
        for artefact in found:
            assert {"id", "paper", "kind", "title", "notebook", "state"} <= set(artefact)
            assert (
                set(artefact["state"]) == {"synthetic", "real"} and set(artefact["state"].values()) <= STATES
            )
            assert artefact["notebook"] is None or (root() / artefact["notebook"]).exists()

    def test_results(self):
        for row in rows("results"):
            assert set(RESULT_KEYS) <= set(row)
            assert row["ci_low"] is None or row["ci_low"] <= row["value"] <= row["ci_high"]

    def test_claims(self):
        found = rows("claims")
        assert len({c["id"] for c in found}) == 94 and sum(c["transferable"] for c in found) == 74
        for claim in found:
            assert {"id", "paper", "statement", "transferable", "verdicts"} <= set(claim)
            assert all(set(VERDICT_KEYS) <= set(verdict) for verdict in claim["verdicts"])

    def test_lists_of_some_papers(self):
        assert {claim["paper"] for claim in rows("claims", "ect")} == {"ect"}
        assert {artefact["paper"] for artefact in rows("artefacts", "rnn", "ect")} == {"rnn", "ect"}
        assert all(row["artefact"].startswith("DAN-") for row in rows("results", "dan"))

    @pytest.mark.parametrize("command", ["artefacts", "results", "claims"])
    def test_without_json_there_is_a_table(self, command):
        done = replicate(command)
        assert done.returncode == 0 and command in done.stdout.splitlines()[0]
        with pytest.raises(ValueError):
            json.loads(done.stdout)


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run", "dan", "--profile", "cup"], "expected one of smoke, cpu, gpu. Did you mean 'cpu'"),
            (["run", "dan", "--faces", "synthetics"], "Did you mean 'synthetic'"),
            (["run", "DAN-T55", "--profile", "smoke"], "Did you mean 'DAN-T5'"),
            (["run", "dan", "--profile", "smoke", "-p", "sed=1"], "got 'sed', expected one of"),
            (["run", "dan", "--profile", "smoke", "-p", "seed"], "expected NAME=VALUE"),
            (["run", "dan", "--jobs", "0"], "--jobs"),
            (["book", "--profile", "x"], "expected one of smoke, cpu, gpu"),
            (["bench", "dan.speed"], "benchmark: got 'dan.speed'"),
            (["detect", "x.png", "--method", "sdm"], "expected one of lddr, tcnn, dan, rnn, ect"),
            (["detect", "x.png", "--box", "1,2,3"], "expected four numbers"),
            (["detect", "x.png", "y.png", "--draw", "out.png"], "--draw takes one image"),
            (["data", "describe", "301w"], "Did you mean '300w'"),
            (["data", "make", "folder", "--condition", "hard"], "condition: got 'hard'"),
            (["resluts"], "No such command"),
            (["claims", "etc"], "Did you mean 'ect'"),
            (["artefacts", "--jsno"], "No such option"),
        ],
    )
    def test_is_exit_status_2_and_says_what_is_valid(self, arguments, message):
        done = replicate(*arguments)
        words = " ".join(done.stderr.replace("│", " ").split())
        assert done.returncode == 2 and message in words, done.stderr
        assert done.stdout == "" and "Traceback" not in done.stderr


def test_an_unwritable_cache_is_exit_status_1_without_a_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    done = replicate("run", "dan", "--profile", "smoke", REPLICATE_CACHE=str(tmp_path / "file"))
    assert done.returncode == 1 and "error: " in done.stderr and "REPLICATE_CACHE" in done.stderr
    assert "Traceback" not in done.stderr


def test_real_faces_that_are_absent_are_exit_status_1_before_anything_runs(tmp_path):
    done = replicate(
        "run", "dan", "--faces", "real", "--profile", "smoke", REPLICATE_DATA=str(tmp_path / "nowhere")
    )
    assert done.returncode == 1 and "Set REPLICATE_DATA" in done.stderr and "Executing" not in done.stderr


class TestData:
    def test_check_names_every_part_and_what_is_wrong(self, tmp_path):
        folder = tmp_path / "300w" / "ibug"
        folder.mkdir(parents=True)
        found = rows("data", "check", REPLICATE_DATA=str(tmp_path))
        assert {r["part"]: r["expected"] for r in found}["helen/trainset"] == 2000
        assert {r["state"] for r in found} == {"absent"}
        (folder / "a.pts").write_text("")
        done = replicate("data", "check", "--json", REPLICATE_DATA=str(tmp_path))
        assert done.returncode == 1 and "a.pts lacks its partner" in done.stderr
        state = {r["part"]: r["state"] for r in json.loads(done.stdout)}["ibug"]
        assert state.startswith("damaged: ") and "a.pts lacks its partner" in state

    def test_made_files_are_read_back_as_they_were_generated(self, tmp_path):
        from replicate.faces.images import read_image
        from replicate.faces.real.w300 import read_pts

        rows("data", "make", tmp_path, "--count", "2", "--seed", "5")
        face = generate(5, 1, "common")
        assert (read_image(tmp_path / "common_5_00001.png") == face.image).all()
        np.testing.assert_allclose(read_pts(tmp_path / "common_5_00001.pts"), face.points, atol=1e-3)

    def test_describe_tells_what_each_split_holds_or_why_it_is_absent(self, tmp_path):
        found = {r["split"]: r for r in rows("data", "describe", "300w", "--profile", "smoke")}
        assert found["full"]["images"] == found["common"]["images"] + found["challenging"]["images"] > 0
        absent = rows("data", "describe", "300w", "--faces", "real", REPLICATE_DATA=str(tmp_path))
        states = {r["split"]: r["state"] for r in absent if r["images"] == 0}
        assert "synthetic faces only" in states.pop("wide")
        assert set(states) == {
            "train", "common", "challenging", "full", "private", "train+menpo", "lfpw+helen", "unseen",
        }  # fmt: skip
        assert all("REPLICATE_DATA" in state for state in states.values())


class TestDetect:
    @pytest.fixture
    def picture(self, tmp_path) -> Path:
        face = generate(0, 0, "common")
        path = tmp_path / "face.png"
        cv2.imwrite(str(path), face.image[..., ::-1])
        return path

    @pytest.mark.parametrize(("method", "points"), [("lddr", 68), ("tcnn", 5), ("dan", 68), ("ect", 68)])
    def test_json_and_drawing(self, method, points, picture, tmp_path):
        drawn = tmp_path / "out.png"
        box = "40,50,180,190"
        options = ["--method", method, "--box", box, "--draw", drawn, "--profile", "smoke"]
        (found,) = rows("detect", picture, *options)
        assert set(found) == {"image", "box", "method", "points", "seconds"}
        assert found["box"] == [40, 50, 180, 190] and np.array(found["points"]).shape == (points, 2)
        assert found["method"] == method and found["seconds"] > 0
        before, after = cv2.imread(str(picture)), cv2.imread(str(drawn))
        assert before.shape == after.shape and (before != after).any()

    def test_a_picture_without_a_face_says_what_to_do(self, tmp_path):
        path = tmp_path / "empty.png"
        cv2.imwrite(str(path), np.full((200, 200, 3), 127, np.uint8))
        done = replicate("detect", path, "--profile", "smoke")
        assert done.returncode == 1 and "no upright frontal face" in done.stderr and "--box" in done.stderr
        assert done.stdout == ""

    @pytest.mark.parametrize("box", ["300,300,400,400", "50,50,50,90", "nan,0,10,10"])
    def test_an_unusable_box_is_an_error(self, picture, box):
        done = replicate("detect", picture, "--box", box, "--profile", "smoke")
        assert done.returncode == 1 and "expected x0,y0,x1,y1 with x0 < x1" in done.stderr

    def test_a_truncated_picture_is_an_error(self, picture):
        picture.write_bytes(picture.read_bytes()[:2000])
        done = replicate("detect", picture, "--profile", "smoke")
        assert done.returncode == 1 and "truncated" in done.stderr and "Traceback" not in done.stderr


class TestModels:
    def test_a_damaged_model_is_found_by_verify(self, tmp_path):
        folder = tmp_path / "models"
        folder.mkdir()
        (folder / "dan-stage1-smoke-000000000000.safetensors").write_bytes(b"nonsense")
        done = replicate("models", "verify", "--json", REPLICATE_CACHE=str(tmp_path))
        assert (
            done.returncode == 1
            and "dan-stage1-smoke-000000000000" in done.stderr
            and "trained again" in done.stderr
        )
        assert all(r["state"] == "intact" for r in json.loads(done.stdout))


def test_a_model_without_a_validation_error_is_listed_as_json(tmp_path):
    """A baseline is fitted in closed form and has none; infinity would not be JSON."""
    key = ModelKey("meanshape", {}, "faces", "smoke", 0, 1)
    shape = {"shape": torch.zeros(68, 2)}
    store.save(tmp_path / "models" / key.filename, key, shape, FitReport(stopped="closed form"), "test")
    listed = rows("models", "list", REPLICATE_CACHE=str(tmp_path))
    (found,) = [row for row in listed if row["hash"] == key.hash]
    assert found["validation error"] is None and found["method"] == "meanshape"
