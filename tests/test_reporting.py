"""`pipeline report` as it is typed: what it shows, its limits and exit codes, its SQL, its formats."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli, credit_summary
from pipeline.lake import LakeFiles
from tests.conftest import classify, land

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with three runs, one of them failed; tests only read it."""
    folder = tmp_path_factory.mktemp("reported")
    land(
        LakeFiles(folder),
        classify("clr_1", usage={"credits": 1.5}),
        classify("clr_2", usage={"credits": 0.3}, createdAt="2026-11-03T00:00:00Z"),
        classify("clr_3", status="FAILED", failureReason="ODD_REASON"),
    )
    return folder


@pytest.fixture
def called(folder: Path, capsys: pytest.CaptureFixture[str]) -> Called:
    """Return what calls `pipeline` on that lake and returns its exit code, its output and its errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main([*arguments, "--lake", str(folder)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["credits", "--budget", "1.8"], 0, ""),
        (["credits", "--budget", "1.7"], 4, "above the budget of 1.7 credits: November 2026: 1.8 cre"),
        (["credits", "--budget", "0.2", "--where", "resource_id = 'clr_2'"], 4, "0.3 credits to 2026-11-03"),
        (["failures", "--fail-above", "0.3"], 4, "above 30.0 %: 1 of 3 failed, 33.3 % (6.1 % to 79.2 %)"),
        (["failures", "--fail-above", "33%"], 4, "failure rate above 33.0 %"),
        (["failures", "--fail-above", "34%"], 0, ""),
        (["failures", "--fail-above", "0", "--since", "2026-11-03"], 0, ""),
        (["failures", "--fail-above", "0", "--since", "2027"], 2, "--since 2027: not a day"),
        (["failures", "--fail-above", "0", "--since", "2027-01"], 0, "no run has ended here"),
        (["credits", "--budget", "lots"], 2, "'lots' is not a number of credits"),
        (["failures", "--fail-above", "5"], 2, "'5' is not a rate; write 0.05 or 5%"),
        (["credits", "--where", "true; DROP TABLE runs"], 2, "not a condition"),
        (["credits", "--by", "colour"], 2, "--by colour: not a dimension here"),
        (["credits", "--rate", "absent.csv"], 2, "neither a positive number of USD a credit nor a file"),
        (["latency", "--by", "product"], 2, "--by product: not a dimension here"),
    ],
    ids=str,
)  # fmt: skip
def test_a_report_ends_with_4_only_where_a_limit_is_passed(
    called: Called, arguments: list[str], code: int, words: str
) -> None:
    found, _out, err = called("report", *arguments)
    assert found == code, err
    assert words in err
    assert bool(err) == bool(words)


def test_reports_show_what_is_asked_for_each_in_its_words(called: Called) -> None:
    def shown(*arguments: str) -> str:
        code, out, err = called("report", *arguments)
        assert (code, err) == (0, "")
        return out

    runs = [line.split() for line in shown("credits", "--show", "runs", "--most", "1").splitlines()[2:]]
    assert runs[0] == ["clr_1", "classify_run", "2026-11-02", "1.5", "██████████", "PROCESSED"]
    assert len(runs) == 2
    unknown = shown("credits", "--show", "unknown").splitlines()[2].split()
    assert unknown == ["failed", "or", "cancelled", "classify_run", "1", "2026-11-02", "2026-11-02"]
    assert "Repeated, 0 credits" in shown("credits", "--show", "wasted")
    assert shown("credits", "--show", "forecast").startswith("November 2026: 1.8 credits to 2026-11-03;")
    priced = shown("credits", "--by", "kind", "--rate", "0.1").splitlines()[2].split()
    assert priced == ["classify_run", "1.8", "██████████", "0.18", "2", "1"]
    compared = shown("credits", "--compare", "previous", "--since", "2026-11-03", "--until", "2026-11-04")
    assert compared.splitlines()[2].split() == ["classify_run", "0.3", "1.5", "-1.2", "−80.0", "%", "██████████"]
    assert "2026-11-03 to 2026-11-03, beside 2026-11-02 to 2026-11-02: 1 days each." in compared
    failures = shown("failures")
    for words in ("The trend:", "What changed:", "33.3 % failed of 3, no of 0 before", "Messages"):
        assert words in failures
    trend = shown("failures", "--show", "trend").splitlines()
    assert trend[2].split() == ["2026-11-02", "1", "3", "33.3", "%", "██████████", "6.1", "%", "to", "79.2", "%"]
    trend = shown("failures", "--show", "trend", "--by", "day").splitlines()
    assert [line.split()[:3] for line in trend[2:4]] == [["2026-11-02", "1", "2"], ["2026-11-03", "0", "1"]]
    messages = shown("failures", "--show", "messages", "--by", "reason").splitlines()
    assert messages[2].split()[:2] == ["1", "ODD_REASON"]
    latency = shown("latency").splitlines()
    # Each took a minute, but the one created on the 3rd, which changed before that.
    assert latency[2].split() == ["classify_run", "2", "60.0", "██████████", "60.0", "60.0", "60.0", "60.0", "1"]


def test_the_sql_of_a_report_is_answered_by_pipeline_sql(called: Called) -> None:
    for arguments in (["credits", "--by", "month,metadata.team", "--since", "2026-11"], ["failures"], ["latency"]):
        _, asked, _ = called("report", *arguments, "--format", "json")
        _, query, _ = called("report", *arguments, "--sql")
        assert "$since" not in query
        assert called("sql", query, "--format", "json") == (0, asked, "")
        assert asked != "[]\n"


def test_how_fresh_the_data_is_is_only_asked_where_it_is_shown(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(credit_summary, "freshness", lambda _lake: asked.append("") or "it is fresh")
    for report in ("credits", "failures", "latency"):
        for format in ("json", "csv"):
            assert called("report", report, "--format", format)[0] == 0
        assert not asked
        assert "it is fresh" in called("report", report, "--format", "html")[1]
        asked.clear()


@pytest.mark.parametrize("format", ["csv", "json", "markdown", "html"])
@pytest.mark.parametrize(
    "arguments",
    [["credits"], ["credits", "--show", "forecast"], ["failures", "--show", "changes"], ["latency"]],
    ids=" ".join,
)
def test_every_report_comes_in_every_format(called: Called, arguments: list[str], format: str) -> None:
    code, out, err = called("report", *arguments, "--format", format)
    assert (code, err) == (0, "")
    assert {"credits": "2026-11-03", "latency": "60", "failures": "ODD"}[arguments[0]] in out
    if format == "json":
        assert len(json.loads(out)) > 0
    if format == "html":
        assert out.startswith("<!DOCTYPE html>")
        assert "the newest run is of 2026-11-03." in out
