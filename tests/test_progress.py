"""Progress: plain lines every few seconds for logs, a bar on a terminal, and nothing with quiet."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.progress import BarProgress, PlainProgress, Silent, Standing, duration, open_progress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Shows the time it was set to, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the bar's look independent of where the tests run."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


# ---------------------------------------------------------------------------------------------------------------------
# Lengths of time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "0.0 s"),
        (0.25, "0.2 s"),
        (5, "5.0 s"),
        (9.87, "9.9 s"),
        (10, "10 s"),
        (45.4, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h"),
        (3600, "1 h"),
        (3659, "1 h"),
        (3660, "1 h 1 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (86_400 + 3_599, "1 d"),
        (101_100, "1 d 4 h"),
        (273_600, "3 d 4 h"),
        (8_640_000, "100 d"),
    ],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---------------------------------------------------------------------------------------------------------------------
# Plain lines


def test_a_plain_line_comes_every_five_seconds_and_no_oftener() -> None:
    stream, clock = io.StringIO(), Clock(100.0)
    progress = PlainProgress(stream, clock=clock)
    printed = []
    for tenths in range(121):
        clock.now = 100.0 + tenths / 10
        before = stream.getvalue()
        progress.show(Standing(1_200, done=tenths))
        if stream.getvalue() != before:
            printed.append(tenths)
    assert printed == [50, 100]
    assert stream.getvalue().splitlines() == [
        "50 of 1,200 runs, 10/s, 1 min 55 s left",
        "100 of 1,200 runs, 10/s, 1 min 50 s left",
    ]


@pytest.mark.parametrize(
    ("standing", "seconds", "line"),
    [
        (Standing(10), 5, "0 of 10 runs, 0.0/s"),
        (Standing(10, done=1), 8, "1 of 10 runs, 0.1/s, 1 min 12 s left"),
        (Standing(10, done=10), 5, "10 of 10 runs, 2.0/s, 0 s left"),
        (Standing(5_000, done=1_000, retries=1, rate_limited=1, failed=1), 10,
         "1,000 of 5,000 runs, 100/s, 40 s left, 1 retry, 1 429, 1 failure"),
        (Standing(50_000, done=30_000, retries=1_200, rate_limited=7, failed=2), 6,
         "30,000 of 50,000 runs, 5,000/s, 4.0 s left, 1,200 retries, 7 429s, 2 failures"),
        (Standing(500, done=99, failed=3), 10, "99 of 500 runs, 9.9/s, 41 s left, 3 failures"),
        (Standing(500, done=99, failed=1, note="waiting 20 s"), 10,
         "99 of 500 runs, 9.9/s, 41 s left, 1 failure, waiting 20 s"),
    ],
)  # fmt: skip
def test_a_line_says_done_of_asked_speed_time_left_and_what_was_met(
    standing: Standing, seconds: float, line: str
) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, clock=clock)
    clock.now = seconds
    progress.show(standing)
    assert stream.getvalue() == f"{line}\n"


def test_a_plain_sentence_is_printed_at_once_and_closing_says_nothing() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, clock=Clock())
    progress.tell("ids.txt:100: [red]no[/red] ID")
    progress.close()
    assert stream.getvalue() == "ids.txt:100: [red]no[/red] ID\n"


def test_a_plain_line_reaches_a_log_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        PlainProgress(stream, clock=Clock()).tell("one")
        assert (tmp_path / "log").read_text() == "one\n"


# ---------------------------------------------------------------------------------------------------------------------
# The bar


def shown_by_bar(act: Callable[[BarProgress, Clock], None]) -> str:
    """Return what a bar wrote, without its colours."""
    stream, clock = Terminal(), Clock(100.0)
    progress = BarProgress(stream, clock=clock)
    try:
        act(progress, clock)
    finally:
        progress.close()
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def test_the_bar_shows_where_the_load_stands_and_goes_when_it_is_closed() -> None:
    def act(progress: BarProgress, clock: Clock) -> None:
        clock.now = 110.0
        progress.show(Standing(5_000, done=1_000, retries=2, rate_limited=1, failed=3))

    text = shown_by_bar(act)
    assert "1,000 of 5,000 runs, 100/s, 40 s left, 2 retries, 1 429, 3 failures" in text
    assert text.endswith("\x1b[2K")


def test_the_bar_moves_no_oftener_than_ten_times_a_second() -> None:
    def act(progress: BarProgress, clock: Clock) -> None:
        clock.now = 110.0
        progress.show(Standing(5_000, done=1_000))
        clock.now = 110.05
        progress.show(Standing(5_000, done=1_001))

    text = shown_by_bar(act)
    assert "1,000 of 5,000" in text
    assert "1,001 of 5,000" not in text


@pytest.mark.parametrize(
    "message",
    [
        "ids.txt:100: 'x' is not a run ID",
        "a :smile: and a :1234: are text",
        "[bold]clr_1[/bold] [/] is no markup",
        "1 of 3 'quoted' https://example.com",
    ],
)
def test_a_sentence_above_the_bar_is_printed_as_it_is(message: str) -> None:
    text = shown_by_bar(lambda progress, clock: progress.tell(message))
    assert f"{message}\n" in text


def test_a_bar_takes_a_load_of_nothing() -> None:
    def act(progress: BarProgress, clock: Clock) -> None:
        clock.now = 110.0
        progress.show(Standing(0))

    assert "0 of 0 runs, 0.0/s" in shown_by_bar(act)


# ---------------------------------------------------------------------------------------------------------------------
# Which of them


def test_a_terminal_gets_a_bar_and_anything_else_plain_lines() -> None:
    bar = open_progress(quiet=False, stream=Terminal())
    bar.close()
    assert isinstance(bar, BarProgress)
    assert isinstance(open_progress(quiet=False, stream=io.StringIO()), PlainProgress)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_quiet_shows_no_progress_and_still_tells(stream: io.StringIO) -> None:
    progress = open_progress(quiet=True, stream=stream)
    assert isinstance(progress, Silent)
    progress.show(Standing(10, done=5))
    progress.tell("1 of 3 IDs is no run ID")
    progress.close()
    assert stream.getvalue() == "1 of 3 IDs is no run ID\n"


def test_silence_without_a_stream_is_complete(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    progress.show(Standing(10))
    progress.tell("nobody hears")
    progress.close()
    assert capfd.readouterr() == ("", "")
