"""The worklist: each ID once, in the order given, on disk."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.ids import FoundId
from pipeline.kinds import BY_OBJECT, KINDS
from pipeline.worklist import Worklist


def fill(worklist: Worklist, *texts: str) -> list[bool]:
    return [worklist.add(FoundId(text, f"ids.txt:{number}")) for number, text in enumerate(texts, 1)]


def counts(worklist: Worklist) -> dict[str, int]:
    return {kind.object: count for kind, count in worklist.open_by_kind().items()}


def test_ids_come_out_once_each_in_the_order_given() -> None:
    with Worklist() as worklist:
        assert fill(worklist, "pr_2", "clr_9", "pr_1", "clr_9", "pr_2", "vr_1") == [
            True,
            True,
            True,
            False,
            False,
            True,
        ]
        assert list(worklist.iter_open()) == ["pr_2", "clr_9", "pr_1", "vr_1"]
        assert worklist.count() == 4


def test_ids_that_differ_in_case_alone_are_two() -> None:
    with Worklist() as worklist:
        assert fill(worklist, "clr_a", "clr_A") == [True, True]
        assert list(worklist.iter_open()) == ["clr_a", "clr_A"]


def test_an_empty_list_is_empty() -> None:
    with Worklist() as worklist:
        assert (worklist.count(), list(worklist.iter_open()), list(worklist.iter_open_batches(5))) == (0, [], [])
        assert worklist.open_by_kind() == Counter()


@pytest.mark.parametrize("text", ["", "nonsense", "clr_", "clr_../x", "clr_a\0b", "clr_ü", "a" * 10_000, "clr_\udcff"])
def test_a_text_that_is_no_id_counts_as_asked_for_and_is_never_open(text: str) -> None:
    with Worklist() as worklist:
        assert fill(worklist, "clr_1", text, text) == [True, True, False]
        assert worklist.count() == 2
        assert list(worklist.iter_open()) == ["clr_1"]
        assert counts(worklist) == {"classify_run": 1}


def test_what_is_done_is_no_longer_open_and_still_counted() -> None:
    with Worklist() as worklist:
        fill(worklist, "clr_1", "clr_2", "pr_3")
        worklist.mark_done(iter(["clr_1", "not_there", "clr_1"]))
        assert list(worklist.iter_open()) == ["clr_2", "pr_3"]
        assert worklist.count() == 3
        assert fill(worklist, "clr_1") == [False]
        assert list(worklist.iter_open()) == ["clr_2", "pr_3"]


def test_open_ones_are_counted_by_kind() -> None:
    with Worklist() as worklist:
        fill(worklist, "clr_1", "clr_2", "workflow_run_1", "vr_1", "nonsense", "sgr_1", "splr_1")
        worklist.mark_done(["clr_2", "splr_1"])
        assert counts(worklist) == {"classify_run": 1, "workflow_run": 1, "verify_run": 1, "form_detection_run": 1}
        assert set(worklist.open_by_kind()) <= set(KINDS)


def test_a_kind_is_taken_off_with_the_places_where_its_ids_were_found() -> None:
    with Worklist() as worklist:
        fill(worklist, "vr_2", "clr_1", "vr_1", "vr_3")
        worklist.mark_done(["vr_3"])
        taken = list(worklist.take_off(BY_OBJECT["verify_run"]))
        assert taken == [FoundId("vr_2", "ids.txt:1"), FoundId("vr_1", "ids.txt:3")]
        assert list(worklist.iter_open()) == ["clr_1"]
        assert worklist.count() == 4
        assert list(worklist.take_off(BY_OBJECT["verify_run"])) == []


def test_batches_have_the_size_asked_for_and_the_last_the_rest() -> None:
    with Worklist() as worklist:
        fill(worklist, *(f"clr_{number}" for number in range(7)))
        assert list(worklist.iter_open_batches(3)) == [
            ["clr_0", "clr_1", "clr_2"],
            ["clr_3", "clr_4", "clr_5"],
            ["clr_6"],
        ]
        assert list(worklist.iter_open_batches(7)) == [[f"clr_{number}" for number in range(7)]]


def test_marking_while_going_through_does_not_disturb() -> None:
    with Worklist() as worklist:
        fill(worklist, *(f"clr_{number}" for number in range(10)))
        seen = []
        for batch in worklist.iter_open_batches(3):
            seen += batch
            worklist.mark_done(batch)
        assert seen == [f"clr_{number}" for number in range(10)]
        assert list(worklist.iter_open()) == []


def test_more_ids_than_are_read_at_a_time_come_out_whole() -> None:
    many = [f"clr_{number}" for number in range(45_000)]
    with Worklist() as worklist:
        assert all(fill(worklist, *many))
        worklist.mark_done(many[::2])
        seen = []
        for run_id in worklist.iter_open():
            seen.append(run_id)
        assert seen == many[1::2]
        assert worklist.count() == 45_000
        assert counts(worklist) == {"classify_run": 22_500}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files without a name a process has open")
def test_it_is_on_disk_while_open_and_gone_after(tmp_path: Path) -> None:
    with Worklist(tmp_path) as worklist:
        fill(worklist, *(f"clr_{number}" for number in range(100_000)))
        files = [path for path in Path("/proc/self/fd").iterdir() if os.path.realpath(path).startswith(str(tmp_path))]
        assert len(files) == 1
        assert files[0].stat().st_size > 3_000_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file keeps its name")
def test_nothing_of_it_is_left_where_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from pipeline.worklist import Worklist\n"
        f"with Worklist(Path({str(tmp_path)!r})) as worklist: os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_an_error_too(tmp_path: Path) -> None:
    def failing() -> None:
        with Worklist(tmp_path) as worklist:
            fill(worklist, "clr_1")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_two_lists_know_nothing_of_each_other(tmp_path: Path) -> None:
    with Worklist(tmp_path) as one, Worklist(tmp_path) as other:
        fill(one, "clr_1")
        assert fill(other, "clr_1", "clr_2") == [True, True]
        assert (one.count(), other.count()) == (1, 2)
