"""Reading lists, numbers and paths carefully, whatever they hold."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import returns_or_refuses, write_image

from replicate.errors import ReplicateError
from replicate.faces.real import DATA_SETS
from replicate.faces.real.reading import (
    Annotations,
    Part,
    check_points_belong,
    image_reader,
    inside,
    listed_file,
    numbers,
    read_lines,
    read_rows,
    refuse_duplicates,
    refuse_surplus,
    require,
    require_listed,
)

LIST = Path("list.txt")


def small_annotations(**changes) -> Annotations:
    arrays = {"names": ("a", "b"), "points": np.zeros((2, 5, 2)), "visible": np.ones((2, 5), bool)}
    return Annotations(pixels=lambda index: np.zeros((9, 9), np.uint8), **(arrays | changes))


class TestTables:
    def test_names_are_the_keys_and_every_data_set_says_where_it_comes_from(self):
        for name, data_set in DATA_SETS.items():
            assert data_set.name == name
            assert "http" in data_set.url and data_set.terms and data_set.cite and data_set.title
            assert data_set.splits

    @pytest.mark.parametrize("name", DATA_SETS)
    def test_an_empty_folder_is_absent_and_reading_it_says_what_is_missing(self, tmp_path, name):
        data_set = DATA_SETS[name]
        parts = data_set.check(tmp_path)
        assert {part.state for part in parts} == {"absent"} and all(part.found == 0 for part in parts)
        for split in data_set.splits:
            with pytest.raises(ReplicateError, match=str(tmp_path)):
                data_set.read(tmp_path, split)

    @pytest.mark.parametrize("name", DATA_SETS)
    def test_an_unknown_split_is_refused(self, tmp_path, name):
        with pytest.raises(ReplicateError, match="split: got 'tset'"):
            DATA_SETS[name].read(tmp_path, "tset")


class TestPart:
    @pytest.mark.parametrize(
        "found,state",
        [
            (0, "absent"),
            (3, "incomplete"),
            (4, "complete"),
            (5, "damaged: 5 faces, the official release has 4"),
        ],
    )
    def test_state_follows_the_count(self, found, state):
        assert Part.counted("train", 4, lambda: found) == Part("train", 4, found, state)

    def test_what_counting_raises_is_the_damage(self):
        def count():
            raise ReplicateError("list.txt, line 3: x")

        assert Part.counted("train", 4, count) == Part("train", 4, 0, "damaged: list.txt, line 3: x")


class TestAnnotations:
    def test_length_is_the_number_of_names(self):
        assert len(small_annotations()) == 2

    @pytest.mark.parametrize(
        "changes,message",
        [
            ({"names": ("a", "a")}, "1 different names for 2 faces"),
            ({"names": ("a", "caf\udce9")}, r"'caf\\udce9' is not UTF-8 text; rename the file"),
            ({"points": np.zeros((3, 5, 2))}, r"points: got shape \(3, 5, 2\), expected \(2, 5, 2\)"),
            ({"visible": np.ones((2, 4), bool)}, r"visible: got shape \(2, 4\)"),
            ({"boxes": np.zeros((2, 5))}, r"boxes: got shape \(2, 5\), expected \(2, 4\)"),
            ({"attributes": {"pose": np.zeros(3)}}, r"attributes\['pose'\]: got shape \(3,\)"),
            ({"identity": np.zeros(3, int)}, "identity"),
        ],
    )
    def test_arrays_that_disagree_are_refused(self, changes, message):
        with pytest.raises(ReplicateError, match=message):
            small_annotations(**changes)


class TestLines:
    @pytest.mark.parametrize(
        "data",
        [b"a b\nc\n", b"a b\r\nc\r\n", b"a b\rc\r", b"a b\nc", b"\xef\xbb\xbfa b\r\nc"],
    )
    def test_line_ends_and_byte_order_mark(self, tmp_path, data):
        path = tmp_path / "list.txt"
        path.write_bytes(data)
        assert read_lines(path) == ["a b", "c"]
        assert list(read_rows(path)) == [(1, ["a", "b"]), (2, ["c"])]

    def test_only_line_ends_end_lines(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_text("a\u2028b\x0cc\u0085d\n", encoding="utf-8", newline="")
        assert read_lines(path) == ["a\u2028b\x0cc\u0085d"]

    def test_blank_lines_keep_the_numbering_of_rows(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_text("\na\n  \nb\n")
        assert list(read_rows(path)) == [(2, ["a"]), (4, ["b"])]

    def test_what_is_no_text_names_file_and_line(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_bytes(b"a\nb\xff\n")
        with pytest.raises(ReplicateError, match=r"list.txt, line 2: byte 0xff is not UTF-8"):
            read_lines(path)

    def test_an_absent_file_and_a_folder_are_named(self, tmp_path):
        with pytest.raises(ReplicateError, match=r"absent.txt: cannot be read \(No such file"):
            read_lines(tmp_path / "absent.txt")
        with pytest.raises(ReplicateError, match="cannot be read"):
            read_lines(tmp_path)

    @given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
    def test_lines_survive_a_round_trip(self, tmp_path_factory, lines):
        path = tmp_path_factory.mktemp("lines") / "list.txt"
        path.write_bytes(b"".join(line.encode() + b"\n" for line in lines))
        if lines:
            lines[0] = lines[0].removeprefix("\ufeff")
        assert read_lines(path) == lines

    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused(self, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("bytes") / "list.txt"
        path.write_bytes(data)
        returns_or_refuses(lambda: list(read_rows(path)), ["list.txt"])


class TestNumbers:
    def test_values(self):
        assert numbers(LIST, 1, ["1", "-2.5", "3e2"], 3) == [1.0, -2.5, 300.0]

    @pytest.mark.parametrize(
        "fields,message",
        [
            (["1"], "got '1', expected 2 numbers"),
            (["1", "2", "3"], "got '1 2 3', expected 2 numbers"),
            (["1", "x"], "got '1 x', expected 2 numbers"),
            (["1", "1_0"], "got '1 1_0', expected 2 numbers"),
            (["1", "nan"], "expected finite numbers"),
            (["-inf", "1"], "expected finite numbers"),
            (["1", "1e300"], "expected numbers of at most 1000000"),
            ([], "got '', expected 2 numbers"),
        ],
    )
    def test_what_is_refused(self, fields, message):
        with pytest.raises(ReplicateError, match=f"list.txt, line 7: .*{message}"):
            numbers(LIST, 7, fields, 2)

    def test_nan_passes_where_points_may_be_unknown_but_infinity_does_not(self):
        assert np.isnan(numbers(LIST, 1, ["nan"], 1, finite=False)).all()
        with pytest.raises(ReplicateError):
            numbers(LIST, 1, ["inf"], 1, finite=False)

    def test_a_long_line_is_shortened_in_the_message(self):
        with pytest.raises(ReplicateError) as error:
            numbers(LIST, 1, ["x" * 5000], 1)
        assert len(str(error.value)) < 300


class TestPaths:
    def test_backslashes_and_other_alphabets(self, tmp_path):
        assert inside(tmp_path, "a\\b c\\é顔.jpg", LIST, 1) == tmp_path / "a" / "b c" / "é顔.jpg"

    @pytest.mark.parametrize(
        "relative",
        [
            "/etc/passwd",
            "\\etc\\passwd",
            "../a.jpg",
            "a/../../b.jpg",
            "..\\a.jpg",
            "C:\\a.jpg",
            "c:a.jpg",
            "//host/a.jpg",
        ],
    )
    def test_paths_that_lead_out_are_refused(self, tmp_path, relative):
        with pytest.raises(ReplicateError, match=r"list.txt, line 4: got .*neither absolute nor with '\.\.'"):
            inside(tmp_path, relative, LIST, 4)

    @pytest.mark.parametrize("relative", ["", "a\x00.jpg", "a\tb.jpg", "."])
    def test_what_is_no_path_is_refused(self, tmp_path, relative):
        with pytest.raises(ReplicateError, match="list.txt, line 4: "):
            listed_file(tmp_path, relative, LIST, 4)

    def test_links_that_leave_the_folder_are_refused(self, tmp_path):
        folder, outside = tmp_path / "data", tmp_path / "outside"
        folder.mkdir()
        write_image(outside / "a.png")
        (folder / "file.png").symlink_to(outside / "a.png")
        (folder / "folder").symlink_to(outside)
        (folder / "loop").symlink_to(folder / "loop")
        for relative in ("file.png", "folder/a.png", "loop", "loop/a.png"):
            with pytest.raises(ReplicateError, match="line 2: .* leaves .* by a link"):
                inside(folder, relative, LIST, 2)

    def test_links_within_the_folder_and_to_the_folder_are_followed(self, tmp_path):
        write_image(tmp_path / "data" / "a.png")
        (tmp_path / "data" / "b.png").symlink_to("a.png")
        (tmp_path / "link").symlink_to("data")
        assert listed_file(tmp_path / "link", "b.png", LIST, 1).read_bytes()[:4] == b"\x89PNG"

    @given(st.text(max_size=400))
    def test_any_name_stays_inside_or_is_refused(self, tmp_path_factory, relative):
        folder = tmp_path_factory.getbasetemp()
        try:
            found = inside(folder, relative, LIST, 1)
        except ReplicateError as error:
            assert "list.txt, line 1" in str(error)
        else:
            assert os.path.normpath(found).startswith(str(folder))
            returns_or_refuses(lambda: listed_file(folder, relative, LIST, 1), ["list.txt, line 1"])

    def test_absent_files_are_named_with_their_line(self, tmp_path):
        there = write_image(tmp_path / "a.png")
        with pytest.raises(ReplicateError, match=r"list.txt, line 9: .*b.png is not there \(1 of 2 listed"):
            require_listed(LIST, [(8, there), (9, tmp_path / "b.png")])
        with pytest.raises(ReplicateError, match=r"list.txt, line 9: .*b.png is not there"):
            listed_file(tmp_path, "b.png", LIST, 9)
        with pytest.raises(ReplicateError, match=r"MTFL: .*b.png is not there. Set REPLICATE_DATA"):
            require(tmp_path / "b.png", "MTFL")
        require_listed(LIST, [(8, there)])

    def test_duplicates_name_both_lines(self):
        with pytest.raises(ReplicateError, match="list.txt, line 5: 'a' stands on line 2 already"):
            refuse_duplicates(LIST, [(2, "a"), (3, "b"), (5, "a")])
        refuse_duplicates(LIST, [(2, "a"), (3, "b")])

    def test_surplus(self):
        with pytest.raises(ReplicateError, match="list.txt: 5 faces, the official release has 4"):
            refuse_surplus(LIST, 5, 4)
        refuse_surplus(LIST, 4, 4)

    def test_images_are_decoded_by_index(self, tmp_path):
        paths = [write_image(tmp_path / f"{width}.png", width) for width in (10, 20)]
        assert image_reader(paths)(1).shape == (50, 20, 3)


class TestPointsBelong:
    POINTS = np.array([[10.0, 10], [50, 10], [30, 50]])  # 40 x 40: up to 20 outside is tolerated

    @pytest.mark.parametrize("shift", [(0, 0), (-29.9, 0), (0, -29.9), (68.9, 0), (0, 48.9)])
    def test_points_near_the_image_pass(self, shift):
        check_points_belong("a.jpg", (100, 80), self.POINTS + shift)

    @pytest.mark.parametrize("shift", [(-30.1, 0), (0, -30.1), (69.1, 0), (0, 49.1)])
    def test_points_of_another_image_are_refused(self, shift):
        with pytest.raises(ReplicateError, match="a.jpg: the points span .* within the 100x80 image"):
            check_points_belong("a.jpg", (100, 80), self.POINTS + shift)

    def test_unknown_points_do_not_count(self):
        points = np.vstack([self.POINTS, [[np.nan, np.nan]]])
        check_points_belong("a.jpg", (100, 80), points)
        check_points_belong("a.jpg", (100, 80), points[3:])
        with pytest.raises(ReplicateError):
            check_points_belong("a.jpg", (100, 80), points + 90)

    def test_one_point_may_lie_half_an_image_outside_and_no_more(self):
        check_points_belong("a.jpg", (100, 80), np.array([[-44.0, 0]]))
        with pytest.raises(ReplicateError):
            check_points_belong("a.jpg", (100, 80), np.array([[-46.0, 0]]))

    def test_points_all_in_one_place_are_refused(self):
        with pytest.raises(ReplicateError):
            check_points_belong("a.jpg", (100, 80), np.full((5, 2), 40.0))
