"""Reading IDs: from everywhere that users have them, each with its place, and without reading ahead."""

import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.ids import FoundId, iter_ids, why_unusable


def ids(path: Path, column: str | None = None) -> list[str]:
    return [found.text for found in iter_ids([], str(path), column=column)]


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and text


def test_arguments_come_first_in_their_order_repeated_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("clr_3\n")
    assert list(iter_ids(["clr_2", " clr_1 ", "clr_2"], str(path))) == [
        FoundId("clr_2", "argument 1"),
        FoundId("clr_1", "argument 2"),
        FoundId("clr_2", "argument 3"),
        FoundId("clr_3", f"{path}:1"),
    ]


def test_nothing_is_nothing() -> None:
    assert list(iter_ids([], None)) == []


def test_a_text_file_has_one_id_a_line_and_blank_lines_and_comments_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"# mine\nclr_1\n\n  exr_2\t\r\n   # also\n#clr_9\npr_3 oops\nvr_4")
    assert list(iter_ids([], str(path))) == [
        FoundId("clr_1", f"{path}:2"),
        FoundId("exr_2", f"{path}:4"),
        FoundId("pr_3 oops", f"{path}:7"),
        FoundId("vr_4", f"{path}:8"),
    ]


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfclr_1\nclr_2\n")
    assert ids(tmp_path / "ids.txt") == ["clr_1", "clr_2"]
    (tmp_path / "ids.csv").write_bytes(b"\xef\xbb\xbfrun_id,n\nclr_1,2\n")
    assert ids(tmp_path / "ids.csv") == ["clr_1"]


def test_bytes_that_are_no_utf8_cost_their_line_alone(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"clr_1\n\xffclr_2\nclr_3\n")
    assert ids(tmp_path / "ids.txt") == ["clr_1", "\\xffclr_2", "clr_3"]


def test_any_other_ending_is_text(tmp_path: Path) -> None:
    for name in ("ids", "ids.list", "ids.TXT"):
        (tmp_path / name).write_text("clr_1\n")
        assert ids(tmp_path / name) == ["clr_1"]


# ---------------------------------------------------------------------------------------------------------------------
# Standard input


def test_standard_input_is_text_without_a_column() -> None:
    stdin = io.StringIO("# x\nclr_1\n\nclr_2\n")
    assert list(iter_ids(["pr_1"], "-", stdin=stdin)) == [
        FoundId("pr_1", "argument 1"),
        FoundId("clr_1", "standard input:2"),
        FoundId("clr_2", "standard input:4"),
    ]


def test_standard_input_is_csv_with_a_column() -> None:
    stdin = io.StringIO("n,what\n1,clr_1\n2,clr_2\n")
    assert list(iter_ids([], "-", column="what", stdin=stdin)) == [
        FoundId("clr_1", "standard input:2"),
        FoundId("clr_2", "standard input:3"),
    ]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"clr_1\nclr_2\n", ["clr_1", "clr_2"]),
        (b"clr_1\n\xffclr_2\nclr_3\n", ["clr_1", "\\xffclr_2", "clr_3"]),
        (b"\xef\xbb\xbfclr_1\nclr_2\n", ["clr_1", "clr_2"]),
        (b"clr_1\r\nclr_2\r\n", ["clr_1", "clr_2"]),
    ],
    ids=["plain", "no utf-8", "byte order mark", "windows"],
)
def test_the_real_standard_input_is_read_as_a_file_would_be(content: bytes, texts: list[str]) -> None:
    code = "from pipeline.ids import iter_ids; print([found.text for found in iter_ids([], '-')])"
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=False, env=env)
    assert done.stdout.decode().strip() == repr(texts), done.stderr.decode()


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def test_a_csv_file_gives_its_run_id_column_before_its_id_column(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,note,run_id\nno_1,x,clr_1\nno_2,y,clr_2\n")
    assert list(iter_ids([], str(path))) == [FoundId("clr_1", f"{path}:2"), FoundId("clr_2", f"{path}:3")]
    path.write_text("note,id\nx,clr_3\n")
    assert ids(path) == ["clr_3"]


def test_a_named_column_goes_before_both(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,run_id,parse\nclr_1,clr_2,pr_3\n")
    assert ids(path, "parse") == ["pr_3"]


def test_csv_quoting_short_rows_and_blank_cells(tmp_path: Path) -> None:
    path = tmp_path / "ids.CSV"
    path.write_bytes(b'note,id\r\n"two\nlines, and a comma"," clr_1 "\r\nshort\r\n\r\nx,\r\ny,  \r\nz,clr_2,extra\r\n')
    assert list(iter_ids([], str(path))) == [FoundId("clr_1", f"{path}:3"), FoundId("clr_2", f"{path}:8")]


def test_tsv_is_cut_at_tabs(tmp_path: Path) -> None:
    (tmp_path / "ids.tsv").write_text("note\trun_id\na,b\tclr_1\n")
    assert ids(tmp_path / "ids.tsv") == ["clr_1"]


def test_an_empty_csv_file_has_no_column(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("")
    with pytest.raises(UsageError, match=r"ids\.csv: no column run_id or id; .*--column \(none\)"):
        ids(tmp_path / "ids.csv")


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"ids\.csv: no column 'c'; it has: a, b$"):
        ids(tmp_path / "ids.csv", "c")
    with pytest.raises(UsageError, match=r"ids\.csv: no column run_id or id; name one .* --column \(a, b\)"):
        ids(tmp_path / "ids.csv")


def test_what_is_not_csv_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id\nclr_1\n" + "x" * 200_000 + "\n")
    found = iter_ids([], str(path))
    assert next(found).text == "clr_1"
    with pytest.raises(UsageError, match=r"ids\.csv:3: not CSV \(field larger than field limit"):
        next(found)


# ---------------------------------------------------------------------------------------------------------------------
# Parquet


def test_a_parquet_file_gives_its_run_id_column_and_skips_nulls(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "runs.parquet", {"id": ["x", "y", "z"], "run_id": ["clr_1", None, " clr_2 "]})
    assert list(iter_ids([], str(path))) == [FoundId("clr_1", f"{path}: row 1"), FoundId("clr_2", f"{path}: row 3")]


def test_a_parquet_file_gives_a_named_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "runs.PQ", {"run_id": ["clr_1"], "parse_run_id": ["pr_1"]})
    assert ids(path, "parse_run_id") == ["pr_1"]
    with pytest.raises(UsageError, match=r"no column 'nope'; it has: run_id, parse_run_id$"):
        ids(path, "nope")


def test_a_parquet_column_of_categories_is_text(tmp_path: Path) -> None:
    column = pa.array(["clr_1", "clr_2", "clr_1"]).dictionary_encode()
    assert ids(write_parquet(tmp_path / "a.parquet", {"id": column})) == ["clr_1", "clr_2", "clr_1"]


def test_a_parquet_column_of_numbers_is_text_that_is_no_id(tmp_path: Path) -> None:
    assert ids(write_parquet(tmp_path / "a.parquet", {"id": [1, 2]})) == ["1", "2"]


def test_a_parquet_file_of_many_batches_comes_in_order(tmp_path: Path) -> None:
    many = [f"clr_{number}" for number in range(120_000)]
    path = write_parquet(tmp_path / "a.parquet", {"run_id": many})
    found = list(iter_ids([], str(path)))
    assert [each.text for each in found] == many
    assert found[-1].where == f"{path}: row 120000"


def test_what_is_not_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("clr_1\n" * 10)
    with pytest.raises(UsageError, match=r"a\.parquet: cannot be read as Parquet"):
        ids(tmp_path / "a.parquet")


def test_a_parquet_file_that_was_torn_is_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"run_id": ["clr_1"]})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"a\.parquet: cannot be read as Parquet"):
        ids(path)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be read


@pytest.mark.parametrize("name", ["ids.txt", "ids.csv", "ids.parquet"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: no such file$"):
        ids(tmp_path / name)


@pytest.mark.parametrize("name", ["ids.txt", "ids.csv", "ids.parquet"])
def test_a_folder_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=rf"{name}: cannot be read"):
        ids(tmp_path / name)


def test_a_column_of_a_text_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("clr_1\n")
    with pytest.raises(UsageError, match=r"ids\.txt: --column goes with a CSV, TSV or Parquet file"):
        ids(tmp_path / "ids.txt", "run_id")


def test_reading_is_lazy() -> None:
    def endless() -> Iterator[str]:
        for number in itertools.count():
            assert number < 10, "read ahead"
            yield f"clr_{number}\n"

    found = iter_ids([], "-", stdin=endless())
    assert [next(found).text for _ in range(5)] == ["clr_0", "clr_1", "clr_2", "clr_3", "clr_4"]


# ---------------------------------------------------------------------------------------------------------------------
# Why a text is no ID


@pytest.mark.parametrize("text", ["clr_1", "workflow_run_aB-9_z", "pr_" + "a" * 128])
def test_an_id_is_usable(text: str) -> None:
    assert why_unusable(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "file_1",
            "'file_1' is not a run ID: it begins with none of clr_, exr_, splr_, pr_, workflow_run_, edr_, vr_, sgr_",
        ),
        ("", "'' is not a run ID: it begins with none of clr_, exr_, splr_, pr_, workflow_run_, edr_, vr_, sgr_"),
        (
            "clr_../x",
            "'clr_../x' is not a run ID: only letters, digits, `_` and `-` may follow the prefix (at most 128)",
        ),
        ("pr_", "'pr_' is not a run ID: only letters, digits, `_` and `-` may follow the prefix (at most 128)"),
        (
            "clr_\x1b[2J\u202e",
            "'clr_\\x1b[2J\\u202e' is not a run ID: only letters, digits, `_` and `-` may follow the prefix "
            "(at most 128)",
        ),
        (
            "clr_" + "a" * 129,
            f"'clr_{'a' * 56}'… is not a run ID: only letters, digits, `_` and `-` may follow the prefix (at most 128)",
        ),
    ],
)
def test_what_is_no_id_is_told_why_and_cannot_steer_a_terminal(text: str, why: str) -> None:
    assert why_unusable(text) == why
