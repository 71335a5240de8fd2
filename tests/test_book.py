"""The book: complete or the previous one, offline, warnings are errors, and readable at desktop and phone widths."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from small_checkout import Checkout, write_notebook

from replicate import book, book_pages, notebooks
from replicate.errors import ReplicateError
from replicate.evidence.rows import Row
from replicate.paths import root

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
QUIET += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Checkout:
    """A small checkout with its notebook run and its book built."""
    checkout = Checkout(tmp_path_factory.mktemp("book"))
    for arguments in (["run", "--serial"], ["book"]):
        done = checkout.run(*arguments, "--profile", "smoke")
        assert done.returncode == 0, done.stderr
    return checkout


def site(checkout: Checkout) -> Path:
    return checkout.cache / "book" / "html"


def test_every_notebook_has_its_place_and_every_place_its_page():
    contents = book.pages_of(yaml.safe_load((root() / "book" / "_toc.yml").read_text()))
    assert len(set(contents)) == len(contents)
    assert set(notebooks.find()) <= set(contents)


def test_the_pages_are_there_and_hold_what_the_notebook_printed(built):
    for name in (
        "preface",
        "how_to_read",
        "scoreboard",
        "claims",
        "ambiguities",
        "status",
        "dan/index",
        "dan/recorded",
    ):
        assert (site(built) / f"{name}.html").exists(), name
    page = (site(built) / "dan" / "s1_small.html").read_text()
    assert "smoke 42" in page and "The numbers of a smoke run mean nothing" in page
    assert "injected-parameters" not in page


def test_the_scoreboard_lists_all_artefacts_and_the_claims_page_all_claims(built):
    board, claims = ((site(built) / f"{name}.html").read_text() for name in ("scoreboard", "claims"))
    assert len(set(re.findall(r"<td[^>]*><p>((?:LDDR|TCNN|DAN|RNN|ECT)-[A-Z]\w+)</p>", board))) == 206
    assert len(set(re.findall(r"<td[^>]*><p>((?:LDDR|TCNN|DAN|RNN|ECT)-C\w+)</p>", claims))) == 94


def test_the_status_page_tells_time_device_and_date_of_the_run(built):
    status = json.loads(next((built.cache / "notebooks").rglob("s1_small.json")).read_text())
    page = (site(built) / "status.html").read_text()
    assert status["finished_at"][:10] in page and status["device"] in page


def test_no_page_takes_anything_from_another_server(built):
    taken = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//[^>]*>", re.I
    )
    for page in site(built).rglob("*.html"):
        assert not taken.findall(page.read_text()), page
    for sheet in site(built).rglob("*.css"):
        assert not re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(errors="ignore")
        ), sheet


def test_a_second_build_repeats_nothing(built):
    before = site(built).resolve(), (site(built) / "index.html").stat().st_mtime_ns
    done = built.run("book", "--profile", "smoke")
    assert done.returncode == 0 and "Running Jupyter-Book" not in done.stderr
    assert (site(built).resolve(), (site(built) / "index.html").stat().st_mtime_ns) == before


def test_a_notebook_that_was_not_run_is_shown_without_results(built):
    done = built.run("book", "--profile", "cpu", REPLICATE_CACHE=str(built.cache) + "_cpu")
    assert done.returncode == 0, done.stderr
    page = (Path(str(built.cache) + "_cpu") / "book" / "html" / "dan" / "s1_small.html").read_text()
    assert "has not been run on this machine" in page and "cpu 42" not in page


def test_kill_9_while_building_leaves_the_last_book_and_the_next_build_succeeds(built):
    before = site(built).resolve()
    page = built.root / "book" / "how_to_read.md"
    page.write_text(page.read_text() + "\nA further sentence.\n")
    process = built.start("book", "--profile", "smoke")
    work, end = built.cache / "book" / "work", time.monotonic() + 60
    while not list(work.rglob("*.html")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert site(built).resolve() == before and (before / "index.html").exists()
    assert built.run("book", "--profile", "smoke").returncode == 0
    assert "A further sentence." in (site(built) / "how_to_read.html").read_text()
    assert not work.exists() and len(list((built.cache / "book").glob("site-*"))) == 1


class TestBrokenPages:
    def test_a_warning_is_an_error_and_leaves_no_site(self, checkout):
        (checkout.root / "book" / "preface.md").write_text("# Preface\n\n[](nowhere.md)\n")
        done = checkout.run("book", "--profile", "smoke")
        assert done.returncode == 1 and "nowhere" in done.stderr and not site(checkout).exists()

    def test_a_notebook_without_a_place_is_named(self, checkout):
        write_notebook(checkout.root / "notebooks" / "dan" / "s2_more.ipynb")
        done = checkout.run("book", "--profile", "smoke")
        assert done.returncode == 1 and "_toc.yml has no place for dan/s2_more" in done.stderr

    def test_a_place_without_a_page_is_named(self, checkout):
        checkout.write_contents("dan/s1_small", "dan/s9_gone")
        done = checkout.run("book", "--profile", "smoke")
        assert done.returncode == 1 and "names dan/s9_gone" in done.stderr

    def test_serving_without_a_book_says_how_to_build_one(self, checkout):
        done = checkout.run("book", "--serve", "0")
        assert done.returncode == 1 and "make book" in done.stderr


def test_text_from_data_cannot_break_a_table_or_become_markup():
    line = book_pages.table(
        ["a", "b"], [[book_pages.text("x|y *z* $1 <b> `c`"), book_pages.text(None)]]
    ).splitlines()[-1]
    assert line == r"| x\|y \*z\* \$1 \<b\> \`c\` | – |"
    assert len(re.findall(r"(?<!\\)\|", line)) == 3


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: the pages cannot be looked at")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["preface", "scoreboard", "claims", "dan/s1_small"])
def test_no_page_scrolls_sideways(built, tmp_path, name, width):
    page = site(built) / f"{name}.html"
    # A window is never narrower than some 500 pixels; a frame can be. Pages from files may look into each other with the flag.
    frame = page.with_name("frame.html")
    frame.write_text(
        f'<iframe src="{page.name}" style="width:{width}px;height:900px;border:0" onload="setTimeout(() => {{'
        "const e = this.contentDocument.documentElement; document.title = [e.clientWidth, e.scrollWidth].join(' ')}, 500)\"></iframe>"
    )
    options = [
        *QUIET,
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=5000",
    ]
    command = [BROWSER, *options, "--window-size=1400,1000", "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    frame.unlink()
    visible, whole = map(int, re.search(r"<title>(\d+) (\d+)</title>", shown).groups())
    assert width - 20 <= visible <= width and whole <= visible, f"{whole} pixels of content in {visible}"


def test_build_reports_an_unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ReplicateError, match="REPLICATE_CACHE"):
        book.build("smoke", "synthetic")


def test_progress_bars_and_repeated_pictures_are_not_shown():
    def output(kind, **data):
        return nbformat.v4.new_output(kind, data=data)

    picture = {"image/png": "eA==", "text/plain": "<Figure>"}
    value, display = output("execute_result", **picture), output("display_data", **picture)
    bar = output("display_data", **{"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Output()"})
    blank = output("display_data", **{"text/html": "<pre></pre>", "text/plain": ""})
    noise = nbformat.v4.new_output("stream", name="stderr", text="50 %")
    words = nbformat.v4.new_output("stream", name="stdout", text="42")
    assert book._shown([bar, blank, noise, words, value, display]) == [words, value]
    assert book._shown([words, display]) == [words, display]


def test_alternative_text_of_pictures_reaches_the_page():
    def picture(words):
        return nbformat.v4.new_output(
            "display_data", data={"image/png": "eA=="}, metadata={"image/png": {"alt": words}}
        )

    plain = nbformat.v4.new_output("display_data", data={"image/png": "eA=="})
    assert book._alternative_text([picture("A curve."), plain, picture("A face.")]) == "A curve. A face."
    assert book._alternative_text([plain]) == ""


class TestRecordedPage:
    def row(self, **changes) -> Row:
        usual = {"artefact": "DAN-T2", "method": "DAN", "protocol": "300w", "subset": "common", "points": 68}
        usual |= {
            "metric": "mean error",
            "normaliser": "inter-ocular",
            "value": 3.5,
            "ci_low": 3.4,
            "ci_high": 3.6,
        }
        usual |= {"unit": "%", "images": 554, "seeds": 1, "faces": "real", "profile": "cpu", "device": "cpu"}
        return Row(**usual | changes, box_rule="a stated rule")

    def test_numbers_on_real_faces_stand_beside_the_papers_with_their_caption(self):
        page = book_pages.recorded_page("dan", [self.row()], [])
        assert "## Real faces, profile cpu" in page and "### DAN-T2" in page
        (line,) = [line for line in page.splitlines() if line.startswith("| DAN ")]
        assert "3.19" in line and "3.50" in line and "3.40" in line and "3.60" in line and "0.31" in line
        assert "real faces" in page and "554 common images" in page and "a stated rule" in page

    def test_real_comes_before_synthetic_and_smoke_is_left_out(self):
        rows = [self.row(faces="synthetic"), self.row(), self.row(profile="smoke", artefact="DAN-T5")]
        page = book_pages.recorded_page("dan", rows, [])
        assert page.index("## Real faces") < page.index("## Synthetic faces") and "DAN-T5" not in page

    def test_without_numbers_it_says_so(self):
        assert "Nothing has been recorded yet" in book_pages.recorded_page("dan", [], [])


def test_the_first_page_of_a_chapter_has_each_claim_once_with_its_verdicts():
    def claim(number, *verdicts):
        keys = ("faces", "profile", "verdict")
        found = [dict(zip(keys, one, strict=True)) for one in verdicts]
        return {"id": f"DAN-C{number}", "statement": f"Claim {number}.", "verdicts": found}

    found = [
        claim(1, ("synthetic", "cpu", "reproduced"), ("synthetic", "gpu", "inconclusive"), ("real", "cpu", "reproduced")),
        claim(2, ("synthetic", "cpu", "not reproduced"), ("real", "smoke", "reproduced")),
        claim(3),
    ]  # fmt: skip
    lines = [line for line in book_pages.overview(found).splitlines() if line.startswith("| C")]
    assert lines == [
        "| C1 | Claim 1. | {bdg-warning}`inconclusive` | {bdg-success}`reproduced` |",
        "| C2 | Claim 2. | {bdg-danger}`not reproduced` | {bdg-light}`not run` |",
        "| C3 | Claim 3. | {bdg-light}`not run` | {bdg-light}`not run` |",
    ]


def test_runs_of_a_notebook_are_its_own_and_also_those_that_failed(tmp_path, monkeypatch):
    """A notebook may have a name that begins with another one's."""
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))
    folder = tmp_path / "notebooks" / "cpu" / "real" / "seed0" / "ect"
    folder.mkdir(parents=True)
    run = {"profile": "cpu", "faces": "real", "seed": 0, "device": "cpu", "finished_at": "2026-01-02T03:04", "commit": "abc"}  # fmt: skip
    for name, seconds in {"s4a.json": 11, "s4a.failed.json": 22, "s4a_test.json": 33}.items():
        exit_ = "failed" if "failed" in name else "done"
        (folder / name).write_text(json.dumps(run | {"seconds": seconds, "exit": exit_}))
    lines = book_pages._runs_of("ect/s4a")
    assert sorted(line[5] for line in lines) == ["11", "22"]
    assert [line[5] for line in book_pages._runs_of("ect/s4a_test")] == ["33"]


def test_no_page_links_to_a_heading_of_its_own():
    """Headings have no anchors here: such a link is a warning, and warnings stop the build."""
    pages = [*(root() / "book").rglob("*.md"), *(root() / "notebooks").rglob("*.ipynb")]
    assert pages and not [page.name for page in pages if "](#" in page.read_text(encoding="utf-8")]
