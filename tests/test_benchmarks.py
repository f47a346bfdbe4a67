"""The benchmark suite runs, and what it measures, checks and tells is so. No time is asserted here."""

import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.flatten import flatten_run
from pipeline.lake import LakeFiles
from pipeline.schema import RUN_COLUMNS
from tests.benchmarks import __main__ as suite
from tests.benchmarks import asking, growth, lakes, results, rows
from tests.benchmarks.measuring import BenchmarkError, Spread, in_turn, ratios, run_child
from tests.benchmarks.results import Line
from tests.fast_server import payload, run_id

NOW = datetime(2026, 11, 3, tzinfo=UTC)


@pytest.mark.long  # a whole command, and a hundred day files
def test_a_small_pass_without_peers_pulls_runs_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite.main(["--small", "--alone", "by_id", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| 100 runs of 31 days by ID, end to end: runs a second |" in printed
    assert "reached" not in printed
    assert list(tmp_path.iterdir()) == []


def test_what_a_small_pass_finds_cannot_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--small", "--save", "start"])
    assert "not to be kept" in capsys.readouterr().err


def test_every_question_is_a_module_with_something_to_measure() -> None:
    folder = Path(suite.__file__).parent
    assert {path.stem for path in folder.glob("*.py") if "def measure(" in path.read_text()} == set(results.QUESTIONS)


# Measuring


def test_a_child_is_measured_by_what_it_takes(tmp_path: Path) -> None:
    idle = run_child([sys.executable, "-c", "print('done')"], folder=tmp_path)
    code = "import time; held = b'x' * (300 << 20); began = time.process_time()\nwhile time.process_time() < 0.5: pass"
    busy = run_child([sys.executable, "-c", code], folder=tmp_path)
    assert idle.output == "done\n"
    assert busy.cpu_s >= 0.5
    assert busy.wall_s >= 0.5
    if sys.platform == "linux":
        assert 300 <= busy.peak_mib < 400
        assert idle.peak_mib < 50


def test_a_child_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"exit code 3\nbecause"):
        run_child([sys.executable, "-c", "import sys; print('because', file=sys.stderr); sys.exit(3)"], folder=tmp_path)


def test_things_are_run_in_turn_after_one_turn_that_does_not_count(tmp_path: Path) -> None:
    done: list[tuple[str, int]] = []
    one = run_child([sys.executable, "-c", ""], folder=tmp_path)

    def run(name: str) -> object:
        return lambda turn: done.append((name, turn)) or one

    took = in_turn(2, {"a": run("a"), "b": run("b")}, once_before=True)
    assert done == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert took == {"a": [one, one], "b": [one, one]}


def test_ratios_are_of_pairs_and_spreads_are_told_with_the_median() -> None:
    assert ratios([4.0, 9.0, 10.0], [2.0, 3.0, 4.0]) == Spread(2.5, 2.0, 3.0)
    assert Spread(2.5, 2.0, 3.0).text(" times") == "2.50 times (2.00 – 3.00)"
    assert Spread(1234.5, 1234.5, 1234.5).text() == "1,234"


def test_an_exponent_is_that_of_the_power() -> None:
    assert growth.exponent((1_000, 10_000, 100_000), [3.0, 30.0, 300.0]) == pytest.approx(1)
    assert growth.exponent((10, 100, 1_000), [5.0, 500.0, 50_000.0]) == pytest.approx(2)
    assert growth.exponent((10, 100, 1_000), [7.0, 7.0, 7.0]) == pytest.approx(0)


# Checking


def write_csv(folder: Path, lines: list[str]) -> None:
    (folder / "runs.csv").write_text("\n".join(lines) + "\n")


def test_rows_that_are_not_what_the_server_gave_are_found(tmp_path: Path) -> None:
    # Of the fast server's runs 0 failed, as every seventh does; 1 was charged 1.3.
    right = [f"{run_id(0)},FAILED,PARSING_ERROR,", f"{run_id(1)},PROCESSED,,1.3"]
    write_csv(tmp_path, right)
    rows.check_rows("peer", rows.CSV, tmp_path, range(2), payload)
    wrong = {
        "a credit": [right[0], right[1].replace("1.3", "1.4")],
        "one lost": right[:1],
        "one twice": [*right, right[1]],
        "a reason": [right[0].replace("PARSING_ERROR", "OTHER"), right[1]],
    }
    for lines in wrong.values():
        write_csv(tmp_path, lines)
        with pytest.raises(BenchmarkError, match="differ in rows"):
            rows.check_rows("peer", rows.CSV, tmp_path, range(2), payload)


# Lakes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> lakes.MadeLake:
    """A lake of 45 and 3 runs."""
    return lakes.make_lake(tmp_path_factory.mktemp("made") / "lake", [45, 3])


def test_a_made_lake_has_the_rows_that_its_payloads_would_make(made: lakes.MadeLake) -> None:
    changed = {"updated_at", "reviewed", "edited", "fetched_at", "load_id"}
    stored = {
        row["run_id"]: row
        for place in (0, 1)
        for row in LakeFiles(made.folder).read_day(lakes.day_name(place)).to_pylist()
    }
    assert len(stored) == 48
    for place in (0, 1):
        for number in made.numbers(place):
            found = flatten_run(lakes.payload(number, 2), fetched_at=NOW, load_id="L", is_detail=True)
            flat = found.row()
            row = stored[lakes.run_id(number)]
            for column in RUN_COLUMNS:
                if column == "metadata":
                    assert row[column].replace(" ", "") == flat[column].replace(" ", "")
                elif column not in changed:
                    assert row[column] == flat[column], (number, column)
            assert flat["updated_at"] > row["updated_at"]
            assert not found.problems


def test_what_is_expected_of_a_made_lake_is_so(made: lakes.MadeLake) -> None:
    # Turns 0 to 44 on the first day: nine rounds of 0.5 + 1 + 1.5 + 2 + 4, fifteen of 0.3 + 0.6 + 2.7; on the second
    # turns 1 to 3. Every twentieth turn failed.
    assert lakes.credits_by_day_and_kind(made) == {
        ("2025-11-01", "extract_run"): Decimal(81),
        ("2025-11-01", "parse_run"): Decimal(54),
        ("2025-11-02", "extract_run"): Decimal("4.5"),
        ("2025-11-02", "parse_run"): Decimal("3.6"),
    }
    assert lakes.failures(made, lakes.reason_of) == Counter(
        {"INTERNAL_ERROR": 1, "PARSING_ERROR": 1, "OUT_OF_CREDITS": 1}
    )
    assert lakes.failures(made, lakes.processor_of) == Counter({"Extractor 0": 1, "Extractor 9": 1, "Extractor 7": 1})


def test_a_wrong_answer_is_found(made: lakes.MadeLake, tmp_path: Path) -> None:
    other = lakes.MadeLake(made.folder, (65, 3))
    with pytest.raises(BenchmarkError, match="its answer on reason is not right"):
        asking.ask(other, "reason", tmp_path)


# Results


def test_what_was_kept_is_told_by_sitting_and_a_question_measured_again_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert results.saved_table(path) == "Not measured yet."
    results.save({"start": [Line("a", "1 s", aim="at most 2 s", reached=True)], "by_id": [Line("b", "3 s")]}, path)
    results.save({"start": [Line("a", "4 s", aim="at most 2 s", reached=False, figures={"wall_s": [4.0]})]}, path)
    text = results.saved_table(path)
    assert text.startswith("Measured on ")
    assert text.splitlines()[2:] == [
        "| what | `pipeline` | beside it | ratio | to reach |  |",
        "| --- | --- | --- | --- | --- | --- |",
        "| b | 3 s |  |  |  |  |",
        "| a | 4 s |  |  | at most 2 s | **not reached** |",
    ]
