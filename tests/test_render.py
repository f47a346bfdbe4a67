"""Render: what a query answers comes out in every format, loses nothing where it must not, and steers no terminal."""

import contextlib
import csv
import io
import json
import re
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.defaults import FORMATS
from pipeline.errors import UsageError
from pipeline.html import Page
from pipeline.render import bar, plain, printable, shown, write_relation, write_table


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def con() -> Any:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def written(relation: duckdb.DuckDBPyRelation, format: str) -> str:
    stream = io.StringIO()
    write_relation(relation, format=format, stream=stream)
    return stream.getvalue()


def written_json(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    return json.loads(written(con.sql(query), "json"))


def written_csv(con: duckdb.DuckDBPyConnection, query: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written(con.sql(query), "csv"), newline="")))


def written_parquet(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> pa.Table:
    with path.open("w") as stream:
        write_relation(con.sql(query), format="parquet", stream=stream)
    return pq.read_table(path)


# One column of each type that the catalog's tables and ordinary queries have: its SQL, what JSON holds of it, what CSV.
CELLS: list[tuple[str, Any, str]] = [
    ("NULL", None, ""),
    ("true", True, "true"),
    ("false", False, "false"),
    ("42", 42, "42"),
    ("(-9223372036854775808)::BIGINT", -9223372036854775808, "-9223372036854775808"),
    ("18446744073709551615::UBIGINT", 18446744073709551615, "18446744073709551615"),
    ("170141183460469231731687303715884105727::HUGEINT", 2**127 - 1, "170141183460469231731687303715884105727"),
    ("(SELECT sum(i) FROM range(4) t(i))", 6, "6"),
    ("(SELECT sum(i) FROM range(0) t(i))", None, ""),
    ("0.3::DECIMAL(18, 6)", "0.300000", "0.300000"),
    ("(SELECT sum(0.1::DECIMAL(18, 6)) FROM range(3))", "0.300000", "0.300000"),
    ("-0.000001::DECIMAL(18, 6)", "-0.000001", "-0.000001"),
    ("999999999999.999999::DECIMAL(18, 6)", "999999999999.999999", "999999999999.999999"),
    (
        "12345678901234567890123456789012345678::DECIMAL(38, 0)",
        "12345678901234567890123456789012345678",
        "12345678901234567890123456789012345678",
    ),
    ("0.1::DOUBLE + 0.2::DOUBLE", 0.30000000000000004, "0.30000000000000004"),
    ("1e300::DOUBLE", 1e300, "1e+300"),
    ("'NaN'::DOUBLE", "nan", "nan"),
    ("'Infinity'::DOUBLE", "inf", "inf"),
    ("'-Infinity'::FLOAT", "-inf", "-inf"),
    ("''", "", ""),
    ("'42'", "42", "42"),
    ("'Köln, \"x\" ✓ \U0001f600'", 'Köln, "x" ✓ \U0001f600', 'Köln, "x" ✓ \U0001f600'),
    ("E'two\\nlines'", "two\nlines", "two\nlines"),
    ("TIMESTAMPTZ '2026-11-03 09:30:00+00'", "2026-11-03T09:30:00Z", "2026-11-03T09:30:00Z"),
    ("TIMESTAMPTZ '2026-11-03 00:30:00.123456+01'", "2026-11-02T23:30:00.123456Z", "2026-11-02T23:30:00.123456Z"),
    ("TIMESTAMP '2026-11-03 09:30:00.000001'", "2026-11-03T09:30:00.000001", "2026-11-03T09:30:00.000001"),
    ("TIMESTAMP_NS '2026-11-03 09:30:00.123456789'", "2026-11-03T09:30:00.123456789", "2026-11-03T09:30:00.123456789"),
    ("DATE '2026-11-03'", "2026-11-03", "2026-11-03"),
    ("TIME '09:30:00.5'", "09:30:00.500000", "09:30:00.500000"),
    ("'\\x00\\xFF'::BLOB", "00ff", "00ff"),
    (
        "'00000000-0000-0000-0000-00000000000a'::UUID",
        "00000000-0000-0000-0000-00000000000a",
        "00000000-0000-0000-0000-00000000000a",
    ),
    ("'b'::ENUM ('a', 'b')", "b", "b"),
    ("[1, NULL, 3]", [1, None, 3], "[1, null, 3]"),
    ("[]", [], "[]"),
    ("[0.3::DECIMAL(4, 2), NULL]", ["0.30", None], '["0.30", null]'),
    ("['NaN'::DOUBLE]", ["nan"], '["nan"]'),
    ("[['a'], ['b', 'c']]", [["a"], ["b", "c"]], '[["a"], ["b", "c"]]'),
    (
        "{'credits': 1.5::DECIMAL(18, 6), 'at': TIMESTAMPTZ '2026-11-03 09:30:00.5+00', 'pages': [1, 2]}",
        {"credits": "1.500000", "at": "2026-11-03T09:30:00.500000Z", "pages": [1, 2]},
        '{"credits": "1.500000", "at": "2026-11-03T09:30:00.500000Z", "pages": [1, 2]}',
    ),
    ("MAP {'NOT_FOUND': 2::BIGINT}", [["NOT_FOUND", 2]], '[["NOT_FOUND", 2]]'),
]


@pytest.mark.parametrize(("sql", "in_json", "in_csv"), CELLS, ids=[sql for sql, *_ in CELLS])
def test_a_value_comes_out_whole_in_json_and_csv(
    con: duckdb.DuckDBPyConnection, sql: str, in_json: Any, in_csv: str
) -> None:
    query = f"SELECT {sql} AS value, 'end' AS last"
    rows = written_json(con, query)
    assert rows == [{"value": in_json, "last": "end"}]
    assert type(rows[0]["value"]) is type(in_json)
    assert written_csv(con, query) == [["value", "last"], [in_csv, "end"]]


@pytest.mark.parametrize("sql", [sql for sql, *_ in CELLS])
@pytest.mark.parametrize("format", ["table", "markdown"])
def test_a_value_of_any_type_is_one_line_of_text(con: duckdb.DuckDBPyConnection, format: str, sql: str) -> None:
    lines = written(con.sql(f"SELECT {sql} AS value, 'end' AS last"), format).split("\n")
    assert len(lines) == 4
    assert lines[3] == ""
    assert lines[2].removesuffix(" |").endswith("end")


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def test_json_is_an_array_with_one_object_a_row(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("SELECT i AS n, chr(97 + i::INT) AS letter FROM range(3) t(i)")
    assert written(relation, "json") == (
        '[\n  {"n": 0, "letter": "a"},\n  {"n": 1, "letter": "b"},\n  {"n": 2, "letter": "c"}\n]\n'
    )


def test_json_keeps_every_row_of_many_batches_in_order(con: duckdb.DuckDBPyConnection) -> None:
    rows = written_json(con, "SELECT i AS n FROM range(25001) t(i) ORDER BY i")
    assert [row["n"] for row in rows] == list(range(25_001))


def test_json_loses_no_column_where_two_have_one_name(con: duckdb.DuckDBPyConnection) -> None:
    (row,) = written_json(con, "SELECT 1 AS a, 2 AS a, 3 AS b")
    assert list(row.values()) == [1, 2, 3]


def test_times_are_utc_whatever_the_zone_of_the_session(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("SET TimeZone = 'America/New_York'")
    query = "SELECT TIMESTAMPTZ '2026-11-03 09:30:00+00' AS t"
    assert written_json(con, query) == [{"t": "2026-11-03T09:30:00Z"}]
    assert written_csv(con, query) == [["t"], ["2026-11-03T09:30:00Z"]]
    assert "2026-11-03 09:30:00" in written(con.sql(query), "table")


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def test_csv_quotes_what_needs_it_and_ends_lines_plainly(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("""SELECT 'a,b' AS "x,y", 'say "hi"' AS z, E'l1\\nl2' AS w, NULL AS n""")
    assert written(relation, "csv") == '"x,y",z,w,n\n"a,b","say ""hi""","l1\nl2",\n'


# ---------------------------------------------------------------------------------------------------------------------
# Markdown


def test_markdown_is_a_table_with_its_specials_escaped(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql(
        r"""SELECT 'a|b' AS "p|q", '<script>' AS h, '*b* _i_ `c`' AS m, '[l](http://x)' AS l, 'a\b' AS s, NULL AS n"""
    )
    assert written(relation, "markdown") == (
        "| p\\|q | h | m | l | s | n |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        r"| a\|b | \<script> | \*b\* \_i\_ \`c\` | \[l](http://x) | a\\b |  |"
        "\n"
    )


def test_markdown_keeps_a_row_on_one_line(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql(r"""SELECT E'a\nb\r\nc' AS x, ['d|e'] AS y""")
    assert written(relation, "markdown").splitlines()[2] == r'| a\nb\r\nc | \["d\|e"] |'


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def test_a_table_is_aligned_with_numbers_to_the_right(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("FROM (VALUES ('parse_run', 12), ('edit', 1234567)) t(kind, runs)")
    assert written(relation, "table") == (
        " kind             runs\n"
        " ─────────────────────\n"
        " parse_run          12\n"
        " edit        1,234,567\n"
    )  # fmt: skip


def test_the_points_of_decimals_stand_below_each_other(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("FROM (VALUES (1.5::DECIMAL(18, 6), 'a'), (100, 'b'), (1234.25, 'c'), (NULL, 'd')) t(n, s)")
    lines = written(relation, "table").splitlines()
    assert [line.split() for line in lines[2:]] == [["1.5", "a"], ["100", "b"], ["1,234.25", "c"], ["d"]]
    ones = [lines[2].index("1.5"), lines[3].index("100") + 2, lines[4].index("1,234.25") + 4]
    assert ones == [ones[0]] * 3
    letters = [line.index(letter) for line, letter in zip(lines[2:], "abcd", strict=True)]
    assert letters == [letters[0]] * 4


def test_flags_and_nulls_in_a_table_are_for_people(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("FROM (VALUES (true, NULL), (false, 'x'), (NULL, 'y')) t(reviewed, s)")
    rows = [line.split() for line in written(relation, "table").splitlines()[2:]]
    assert rows == [["yes"], ["no", "x"], ["y"]]


def test_a_row_of_nulls_is_a_line_of_its_own(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("FROM (VALUES (NULL, NULL), ('a', 1), (NULL, NULL), ('b', 2), ('', NULL)) t(s, n)")
    assert [line.split() for line in written(relation, "table").splitlines()[2:]] == [
        [],
        ["a", "1"],
        [],
        ["b", "2"],
        [],
    ]


def test_a_number_column_with_a_long_name_stands_under_the_end_of_its_name(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("FROM (VALUES (5, 'x'), (12345, 'y')) t(total_credits, s)")
    assert written(relation, "table").splitlines() == [
        " total_credits   s",
        " ─────────────────",
        "             5   x",
        "        12,345   y",
    ]


def test_a_table_of_a_thousand_rows_is_whole(con: duckdb.DuckDBPyConnection) -> None:
    lines = written(con.sql("SELECT 'row' || i AS n FROM range(1000) t(i) ORDER BY i"), "table").splitlines()
    assert [line.strip() for line in lines[2:]] == [f"row{number}" for number in range(1000)]


def test_a_table_of_more_than_a_thousand_rows_says_that_there_are_more(con: duckdb.DuckDBPyConnection) -> None:
    lines = written(con.sql("SELECT 'row' || i AS n FROM range(1001) t(i) ORDER BY i"), "table").splitlines()
    assert [line.strip() for line in lines[2:1002]] == [f"row{number}" for number in range(1000)]
    assert lines[1002:] == ["… and more than these 1,000 rows; --format csv gives them all"]


def test_nothing_is_cut_off_where_the_stream_is_no_terminal(con: duckdb.DuckDBPyConnection) -> None:
    text = "x" * 3_000
    assert text in written(con.sql("SELECT $text AS a, $text AS b", params={"text": text}), "table")


def test_a_wide_cell_on_a_terminal_is_folded_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    write_table(["a"], [["x" * 200]], stream=stream)
    assert stream.getvalue().count("x") == 200
    assert max(len(line) for line in stream.getvalue().splitlines() if "x" in line) <= 40


def test_a_table_is_the_same_on_a_wide_terminal_and_off_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = [["漢字", Decimal("1.50"), None, ""], ["e\u0301 ☺", Decimal(12), "▌", "👩 a"], ["🇩🇪", None, "−1 %", "[b]"]]
    off, terminal = io.StringIO(), Terminal()
    for stream in (off, terminal):
        write_table(["name", "n", "", "漢"], rows, stream=stream)
    plain_text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [line.rstrip() for line in plain_text.splitlines()] == off.getvalue().splitlines()
    assert off.getvalue().splitlines()[2] == " 漢字    1.5"


@pytest.mark.parametrize("format", ["table", "csv", "json", "markdown"])
def test_a_time_beyond_the_calendar_is_named_and_no_traceback(con: duckdb.DuckDBPyConnection, format: str) -> None:
    with pytest.raises(UsageError, match="cast it to VARCHAR"):
        written(con.sql("SELECT TIMESTAMP 'infinity' AS t"), format)


def test_markup_and_emoji_codes_in_text_are_text() -> None:
    stream = io.StringIO()
    write_table(["[b]n[/b]"], [["[red]x[/red] :100: :smile:"]], stream=stream)
    assert [line.strip() for line in stream.getvalue().splitlines() if "─" not in line] == [
        "[b]n[/b]",
        "[red]x[/red] :100: :smile:",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Nothing at all


@pytest.mark.parametrize(
    ("format", "text"),
    [("table", " n   s\n ─────\n"), ("csv", "n,s\n"), ("json", "[]\n"), ("markdown", "| n | s |\n| --- | --- |\n")],
)
def test_an_empty_answer_is_well_formed(con: duckdb.DuckDBPyConnection, format: str, text: str) -> None:
    assert written(con.sql("SELECT 1 AS n, 'a' AS s WHERE false"), format) == text


def test_an_empty_answer_in_parquet_has_its_columns(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    table = written_parquet(con, "SELECT 1.5::DECIMAL(18, 6) AS n, 'a' AS s WHERE false", tmp_path / "a.parquet")
    assert (table.num_rows, table.schema.names) == (0, ["n", "s"])
    assert table.schema.field("n").type == pa.decimal128(18, 6)


# ---------------------------------------------------------------------------------------------------------------------
# Parquet


def test_parquet_comes_back_with_its_types_and_values(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    query = (
        "SELECT 0.3::DECIMAL(18, 6) AS credits, TIMESTAMPTZ '2026-11-03 09:30:00.123456+00' AS at, [1, 2] AS pages, "
        "{'a': 'x', 'n': 1.5::DECIMAL(4, 2)} AS struct, MAP {'k': 1} AS map, '\\x00\\xFF'::BLOB AS blob, "
        "NULL::VARCHAR AS nothing, 'Infinity'::DOUBLE AS inf, E'\\x1b[31mred' AS text, true AS flag"
    )
    path = tmp_path / "a.parquet"
    table = written_parquet(con, query, path)
    assert table.schema.field("credits").type == pa.decimal128(18, 6)
    assert table.to_pylist() == [
        {
            "credits": Decimal("0.300000"),
            "at": datetime(2026, 11, 3, 9, 30, 0, 123456, tzinfo=UTC),
            "pages": [1, 2],
            "struct": {"a": "x", "n": Decimal("1.50")},
            "map": [("k", 1)],
            "blob": b"\x00\xff",
            "nothing": None,
            "inf": float("inf"),
            "text": "\x1b[31mred",
            "flag": True,
        }
    ]
    assert con.sql(f"SELECT credits * 10, typeof(credits) FROM '{path}'").fetchall() == [
        (Decimal("3.000000"), "DECIMAL(18,6)")
    ]


def test_parquet_holds_every_row_of_many_batches(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    table = written_parquet(con, "SELECT i AS n FROM range(25001) t(i) ORDER BY i", tmp_path / "a.parquet")
    assert table["n"].to_pylist() == list(range(25_001))


def test_the_stream_is_still_open_after_parquet(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    with (tmp_path / "a.parquet").open("w") as stream:
        write_relation(con.sql("SELECT 1 AS n"), format="parquet", stream=stream)
        assert not stream.buffer.closed


def test_parquet_is_not_written_to_a_terminal(con: duckdb.DuckDBPyConnection) -> None:
    stream = Terminal()
    with pytest.raises(UsageError, match="not for a terminal"):
        write_relation(con.sql("SELECT 1 AS n"), format="parquet", stream=stream)
    assert stream.getvalue() == ""


# ---------------------------------------------------------------------------------------------------------------------
# Text from outside

EVIL = "a\x1b[2J\x9b31m\u202eb\u2066\x07\x7f\x00\u200b\u2028c"
STEERING = set("\x1b\x9b\u202e\u2066\x07\x7f\x00\u200b\u2028")


@pytest.mark.parametrize("format", ["table", "markdown", "json"])
def test_what_could_steer_a_terminal_is_made_visible(con: duckdb.DuckDBPyConnection, format: str) -> None:
    query = "SELECT $evil AS plain, [$evil] AS list, {'k': $evil} AS struct, MAP {$evil: $evil} AS map"
    text = written(con.sql(query, params={"evil": EVIL}), format)
    assert not STEERING & set(text)
    assert "[2J" in text


def test_a_column_name_cannot_steer_a_terminal(con: duckdb.DuckDBPyConnection) -> None:
    for format in ("table", "markdown", "json"):
        assert not STEERING & set(written(con.sql('SELECT 1 AS "x\x1b[2J\x9b\u202e"'), format)), format


def test_json_and_csv_keep_such_text_for_programs(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("SELECT $evil AS x", params={"evil": EVIL})
    assert json.loads(written(relation, "json")) == [{"x": EVIL}]
    assert list(csv.reader(io.StringIO(written(relation, "csv"), newline=""))) == [["x"], [EVIL]]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain Köln 日本 ✓ \U0001f600", "plain Köln 日本 ✓ \U0001f600"),
        ("", ""),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b2J", "\\x9b2J"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eexe.pdf", "\\u202eexe.pdf"),
        ("\u200f\u2067", "\\u200f\\u2067"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\xa0", "\\xa0"),
    ],
)
def test_printable_writes_out_what_is_not(text: str, seen: str) -> None:
    assert printable(text) == seen


# ---------------------------------------------------------------------------------------------------------------------
# Queries that fail


@pytest.mark.parametrize("format", FORMATS)
def test_a_query_that_fails_at_once_is_the_users_to_mend(con: duckdb.DuckDBPyConnection, format: str) -> None:
    with pytest.raises(UsageError, match="boom"):
        write_relation(con.sql("SELECT error('boom') AS x"), format=format, stream=io.StringIO())


@pytest.mark.parametrize("rows", [10, 25_000])
@pytest.mark.parametrize("format", FORMATS)
def test_a_query_that_fails_while_it_is_read_is_the_users_to_mend(
    con: duckdb.DuckDBPyConnection, format: str, rows: int, tmp_path: Path
) -> None:
    con.execute("CREATE TABLE numbers AS SELECT i FROM range($rows) t(i)", {"rows": rows})
    relation = con.sql("SELECT CASE WHEN i < (SELECT max(i) FROM numbers) THEN i ELSE error('boom') END FROM numbers")
    with (tmp_path / "out").open("w") as stream, pytest.raises(UsageError, match="boom"):
        write_relation(relation, format=format, stream=stream)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_full_disk_is_not_blamed_on_the_query(con: duckdb.DuckDBPyConnection, format: str) -> None:
    stream = Path("/dev/full").open("w")  # noqa: SIM115 — closing it may raise again what could not be flushed
    with pytest.raises(OSError, match="No space left"):
        write_relation(con.sql("SELECT i FROM range(100000) t(i)"), format=format, stream=stream)
    with contextlib.suppress(OSError):
        stream.close()


# ---------------------------------------------------------------------------------------------------------------------
# Single values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (-12, "-12"),
        (Decimal("1234.500000"), "1,234.5"),
        (Decimal("100"), "100"),
        (Decimal("100.000000"), "100"),
        (Decimal("0.000001"), "0.000001"),
        (Decimal("0E-6"), "0"),
        (0.123456789, "0.123457"),
        (1234.5, "1,234.5"),
        (float("nan"), "nan"),
        (datetime(2026, 11, 3, 9, 30, 0, 500000, tzinfo=UTC), "2026-11-03 09:30:00"),
        (datetime(2026, 11, 3, 1, 0, tzinfo=timezone(timedelta(hours=9))), "2026-11-02 16:00:00"),
        (date(2026, 11, 3), "2026-11-03"),
        (b"\x00\xff", "00ff"),
        ([1, "a\x1b"], '[1, "a\\u001b"]'),
        ({"a": Decimal("1.50")}, '{"a": "1.50"}'),
        ("a\x1bb", "a\\x1bb"),
    ],
    ids=repr,
)
def test_shown_is_how_a_person_reads_it(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (None, None),
        (True, True),
        (2**100, 2**100),
        (1.5, 1.5),
        ("x", "x"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0E-6"), "0.000000"),
        (datetime(2026, 11, 3, 9, 30, tzinfo=UTC), "2026-11-03T09:30:00Z"),
        (datetime(2026, 11, 3, 9, 30), "2026-11-03T09:30:00"),  # noqa: DTZ001 — a TIMESTAMP has no zone
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (date(2026, 11, 3), "2026-11-03"),
        (time(9, 30), "09:30:00"),
        (timedelta(days=1, seconds=5), "1 day, 0:00:05"),
        (b"\xaa", "aa"),
        ((1, Decimal(2)), [1, "2"]),
        ({1: Decimal(2)}, {"1": "2"}),
    ],
    ids=repr,
)
def test_plain_is_what_json_can_hold(value: Any, held: Any) -> None:
    assert plain(value) == held
    assert type(plain(value)) is type(held)


# ---------------------------------------------------------------------------------------------------------------------
# Spreadsheets, pages, bars

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "-", '=HYPERLINK("x")']


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_cell_of_csv_cannot_become_a_formula(con: duckdb.DuckDBPyConnection, text: str) -> None:
    relation = con.sql("SELECT $text AS a, [$text] AS list", params={"text": text})
    lines = list(csv.reader(io.StringIO(written(relation, "csv"), newline="")))
    assert lines[1][0] == f"'{text}"
    assert lines[1][1].startswith("[")


def test_a_line_end_within_a_cell_of_csv_begins_no_new_row(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql("SELECT $text AS a, 'end' AS b", params={"text": "x\r=1+1"})
    assert written(relation, "csv") == 'a,b\n"x\r=1+1",end\n'


def test_a_column_name_of_csv_cannot_become_a_formula(con: duckdb.DuckDBPyConnection) -> None:
    assert written(con.sql('SELECT 1 AS "=1+1"'), "csv") == "'=1+1\n1\n"


def test_numbers_and_harmless_text_stay_as_they_are_in_csv(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT -1 AS a, -0.5::DECIMAL(4, 2) AS b, -1e-7::DOUBLE AS c, '1-1' AS d, 'a=b' AS e, '' AS f, NULL AS g"
    assert written_csv(con, query)[1] == ["-1", "-0.50", "-1e-07", "1-1", "a=b", "", ""]


def test_json_and_parquet_leave_such_text_alone(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert written_json(con, "SELECT '=1+1' AS a") == [{"a": "=1+1"}]
    assert written_parquet(con, "SELECT '=1+1' AS a", tmp_path / "a.parquet").to_pylist() == [{"a": "=1+1"}]


class Cells(HTMLParser):
    """Reads a page back: the text of each tag, and every tag and attribute that there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)
        self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror='alert(1)'>&amp;\" \x1b[2J\u202e"


def test_a_page_shows_what_comes_from_data_as_text_and_fetches_nothing(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql(f"SELECT $text AS text, 1234.5::DECIMAL(18, 6) AS \"{HOSTILE.replace(chr(34), chr(34) * 2)}\"",
                       params={"text": HOSTILE})  # fmt: skip
    stream = io.StringIO()
    write_relation(relation, format="html", stream=stream, page=Page(f"A title {HOSTILE}", [f"A note {HOSTILE}"]))
    page = Cells(stream.getvalue())
    seen = printable(HOSTILE)
    assert page.texts["td"] == [seen, "1,234.5"]
    assert page.texts["th"] == ["text", seen]
    assert page.texts["p"] == [f"A note {seen}"]
    assert page.texts["h1"] == [f"A title {HOSTILE}"]
    assert set(page.texts) == {
        "html", "head", "meta", "title", "style", "body", "h1", "div", "table", "thead", "tbody", "tr", "th", "td", "p",
    }  # fmt: skip
    assert page.attributes == {"lang", "charset", "name", "content", "http-equiv", "tabindex", "scope", "class"}
    assert "http://" not in stream.getvalue()
    assert "url(" not in stream.getvalue()


def test_a_page_holds_every_row(con: duckdb.DuckDBPyConnection) -> None:
    page = Cells(written(con.sql("SELECT i AS n FROM range(12001) t(i) ORDER BY i"), "html"))
    assert page.texts["td"] == [f"{number:,}" for number in range(12_001)]


def test_notes_stand_below_a_markdown_table(con: duckdb.DuckDBPyConnection) -> None:
    stream = io.StringIO()
    write_relation(con.sql("SELECT 1 AS n"), format="markdown", stream=stream, page=Page("t", ["*Not* zero."]))
    assert stream.getvalue() == "| n |\n| --- |\n| 1 |\n\n\\*Not\\* zero.\n"


@pytest.mark.parametrize(
    ("value", "most", "drawn"),
    [
        (10, 10, "██████████"), (5, 10, "█████"), (Decimal("0.05"), Decimal(1), "▌"), (0.0001, 1.0, "▏"),
        (12, 10, "██████████"), (0, 10, ""), (None, 10, ""), (-1, 10, ""), (1, 0, ""), (0.33, 1.0, "███▎"),
    ],
)  # fmt: skip
def test_a_bar_is_as_long_as_its_value(value: Any, most: Any, drawn: str) -> None:
    assert bar(value, most) == drawn
