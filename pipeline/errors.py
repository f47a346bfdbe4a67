"""What can go wrong, as one tree.

PipelineError                 anything this package raises on purpose
├── UsageError                the call is wrong: a flag, a file, a missing key (exit code 2)
├── ApiError                  the API answered, or did not, and the whole load cannot go on (exit code 1)
│   ├── AccessError           401, 402 or 403: every further request would be refused as well
│   └── OutageError           nothing has answered for so long that waiting on makes no sense
├── RunError                  one run did not come; the others go on
│   ├── RunMissingError       404: deleted, or of another workspace
│   └── RunFailedError        every attempt failed, or the API refused this one request
├── ListError                 one list endpoint did not give its pages; the other kinds go on
│   ├── ListRemovedError      the endpoint is not there (404, 405, 410, or ENDPOINT_REMOVED)
│   └── TokenRefusedError     a page token is not taken any more; the walk must begin again
└── LakeError                 the lake cannot be read or written as it is (exit code 1)
    ├── DiskError             the disk refused: full, read-only, no permission, gone; the message names the file
    ├── StoreError            a bucket did not answer, or refused
    ├── LakeLockedError       another process has been writing for too long
    ├── LakeConflictError     another machine has replaced what this one was about to replace
    └── LakeDamagedError      a file is not what it should be; the message names it
        └── NewerLakeError    a newer version of this program wrote it

A message says what, which run or file or column, and what to do about it. It never holds a secret.
"""

from __future__ import annotations

LOGGED_LANDS_NEXT = "what had been logged lands with the next command, once this is mended"


class PipelineError(Exception):
    """Anything that this package raises on purpose."""

    exit_code = 1


class UsageError(PipelineError):
    """The call is wrong: a flag, a file, a missing key."""

    exit_code = 2


class ApiError(PipelineError):
    """The API answered, or did not, and the whole load cannot go on."""


class AccessError(ApiError):
    """401, 402 or 403: every further request would be refused as well."""


class OutageError(ApiError):
    """Nothing has answered for so long that waiting on makes no sense."""


class RunError(PipelineError):
    """One run did not come; the others go on.

    `reason` is a short code in capitals that reports count by (`NOT_FOUND`, `HTTP_500`, `TIMEOUT`, or the
    API's own error code), `http_status` is null where no answer came, `request_id` is what the vendor's support
    asks for, `attempts` counts requests made for this run. `retryable` says whether asking again later may help.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        reason: str,
        http_status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason
        self.http_status = http_status
        self.request_id = request_id
        self.attempts = attempts
        self.retryable = retryable


class RunMissingError(RunError):
    """404: the run was deleted, or belongs to another workspace."""


class RunFailedError(RunError):
    """Every attempt failed, or the API refused this one request."""


class ListError(PipelineError):
    """One list endpoint did not give its pages; the other kinds go on. `reason` is a code as of a RunError."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ListRemovedError(ListError):
    """The endpoint is not there (404, 405, 410, or ENDPOINT_REMOVED)."""


class TokenRefusedError(ListError):
    """A page token is not taken any more; the walk must begin again."""


class LakeError(PipelineError):
    """The lake cannot be read or written as it is."""


class DiskError(LakeError):
    """The disk refused: full, read-only, no permission, gone; the message names the file."""


class StoreError(LakeError):
    """A bucket did not answer, or refused; `is_unsupported` where it said that it cannot do such a thing at all."""

    def __init__(self, message: str, *, is_unsupported: bool = False) -> None:
        super().__init__(message)
        self.is_unsupported = is_unsupported


class LakeLockedError(LakeError):
    """Another process has been writing for too long."""


class LakeConflictError(LakeError):
    """Another machine has replaced, in a bucket, what this one was about to replace."""


class LakeDamagedError(LakeError):
    """A file of the lake is not what it should be; the message names it."""


class NewerLakeError(LakeDamagedError):
    """A newer version of this program wrote the file that the message names."""
