"""What takes in the payloads and failures of an asking: a raw log, but for what is gone from the lake for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from pipeline import raw
from pipeline.erased import Erased
from pipeline.errors import RunError, RunMissingError


class Intake:
    """Puts payloads and failures into a raw log. What was taken is safe after the next `checkpoint`."""

    def __init__(
        self, writer: raw.RawWriter, erased: Erased, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.left_out = 0  # payloads and failures of runs that are gone from this lake for good
        self._writer, self._erased, self._now = writer, erased, now
        self._taken = 0

    @property
    def pending_bytes(self) -> int:
        """How much was taken since the last checkpoint, in bytes before compression."""
        return self._writer.pending_bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken yet, neither a payload nor a failure."""
        return self._taken == 0

    def take_run(
        self, run_id: str, body: bytes, *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> bool:
        """Take a payload as it arrived; it is safe after the next checkpoint. Tell whether it was taken: what is gone
        from the lake for good is not.
        """
        taken = self.take_runs(
            ((run_id, body),), fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id
        )  # fmt: skip
        return taken == 1

    def take_runs(
        self, runs: Iterable[tuple[str, bytes]], *, fetched_at: datetime, is_detail: bool, workspace_id: str | None
    ) -> int:
        """Take the payloads of an answer, each with its run's ID, as `take_run` does; return how many were taken."""
        lines = []
        for run_id, body in runs:
            admitted = self._erased.admitted(run_id, body, fetched_at)
            if admitted is None:
                self.left_out += 1
            else:
                lines.append(
                    raw.run_record(
                        run_id, admitted, fetched_at=fetched_at, is_detail=is_detail, workspace_id=workspace_id
                    )
                )
        self._taken += len(lines)
        self._writer.append(*lines)
        return len(lines)

    def take_failure(self, error: RunError, *, workspace_id: str | None) -> None:
        """Take an ID that did not come, with the reason; it will be a dead letter, unless it is gone for good."""
        if self._erased.has(error.run_id):
            self.left_out += 1
            return
        self._taken += 1
        self._writer.append(failure_record(error, workspace_id=workspace_id, failed_at=self._now()))

    def checkpoint(self) -> None:
        """Make all that was taken safe against a crash."""
        self._writer.checkpoint()

    def close(self) -> None:
        """Let go of the log; what was not checkpointed is dropped."""
        self._writer.close()


def failure_record(error: RunError, *, workspace_id: str | None, failed_at: datetime) -> bytes:
    """Return a `missing` or `failed` record as one line."""
    fields = {
        "run_id": error.run_id,
        "workspace_id": workspace_id,
        "reason": error.reason,
        "message": str(error),
        "http_status": error.http_status,
        "request_id": error.request_id,
        "attempts": error.attempts,
        "failed_at": failed_at,
    }
    return raw.other_record("missing" if isinstance(error, RunMissingError) else "failed", fields)
