"""What may be tried again, how long to wait before, and when all must wait: failures as data, and outages.

A request that fails becomes a `Failure`, which holds text and codes but no exception: so no traceback, locals or
request headers travel further than the place that caught them, and the key with them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import ssl
import traceback
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import AccessError, ApiError, OutageError, PipelineError, RunFailedError, RunMissingError
from pipeline.transport import NoConnectionError

MAX_TEXT = 200
_CODE = re.compile(r"[A-Z0-9_]{1,64}")
_RETRYABLE_STATUSES = frozenset({408, 409, 429})

_TLS_ADVICE = (
    "if a company proxy inspects TLS, set SSL_CERT_FILE to the file with its CA certificate; else check --base-url"
)
_ACCESS_ADVICE = {
    401: "the API does not accept this key; check EXTEND_API_KEY, and that the key is of this region (--region)",
    402: "the organization is out of credits or blocked; see billing in the Extend dashboard",
    403: "this key may not read these runs; check the key, and --workspace (an organization-wide key needs it)",
}
_MISSING_ADVICE = "it was deleted, or belongs to another workspace (--workspace)"
_ADVICE = {
    "RATE_LIMIT_EXCEEDED": "lower --qps",
    "HTTP_429": "lower --qps",
    "REDIRECTED": "the base URL may be wrong: check --base-url",
    "RESPONSE_TOO_LARGE": "ask the API for this run by hand",
    "ENDPOINT_REMOVED": "the API no longer offers this; look for a newer version of this program",
    "WRONG_ID": "something between here and the API mixes up answers; check for a caching proxy",
    "BROKEN_BODY": "check for a proxy that alters answers, then try again",
}


class BrokenBodyError(Exception):
    """A body that is not the answer to what was asked. Never leaves the client: it becomes a Failure."""

    def __init__(self, text: str, reason: str = "BROKEN_BODY") -> None:
        super().__init__(text)
        self.reason = reason


class TooLargeError(Exception):
    """A body above the bound. Never leaves the client: it becomes a Failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request did not bring what was asked for.

    `reason` is the short code that reports count by, `text` says it to a person, `http_status` is null where no
    answer came. `outage` is true where the whole API may be down: no answer, 5xx, 429. `alive` is true where the API
    itself gave a considered answer. `fatal` ends the load. `retry_after_s` is what the server asked for, if anything.
    """

    reason: str
    text: str
    http_status: int | None = None
    request_id: str | None = None
    retryable: bool = False
    outage: bool = False
    fatal: bool = False
    retry_after_s: float | None = None

    @property
    def alive(self) -> bool:
        return self.http_status is not None and not self.outage and self.http_status >= 400


def clean_text(value: object, limit: int = MAX_TEXT) -> str:
    """Return foreign text as one printable line of at most `limit` characters; the empty text for what is none."""
    if not isinstance(value, str):
        return ""
    shown = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in value[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes, *, retry_after_s: float | None) -> Failure:
    """Return the failure that an answer other than 200 is. `retryable` in its body goes before its status."""
    error = _error_body(body)
    code = error.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    message = clean_text(error.get("message"))
    told = error.get("retryable")
    retryable = told if isinstance(told, bool) else status in _RETRYABLE_STATUSES or status >= 500
    text = f"HTTP {status}"
    if code:
        text += f" {code}"
    if message:
        text += f" ({message})"
    return Failure(
        reason=code or f"HTTP_{status}",
        text=text,
        http_status=status,
        request_id=clean_text(error.get("requestId") or headers.get("x-request-id"), 100) or None,
        retryable=retryable,
        outage=retryable and (status == 429 or status >= 500),
        fatal=status in (401, 402, 403),
        retry_after_s=retry_after_s,
    )


def failure_of_redirect(status: int, headers: Mapping[str, str]) -> Failure:
    """Return the failure that a redirect is: it is never followed, and only its target's host is shown."""
    try:
        host = urlsplit(headers.get("location", "")).hostname or ""
    except ValueError:
        host = ""
    to = f" to {clean_text(host, 100)}" if host else ""
    return Failure("REDIRECTED", f"HTTP {status} redirects{to}, which is not followed", http_status=status)


def failure_of_body(error: BrokenBodyError | TooLargeError, status: int) -> Failure:
    """Return the failure that an answer with status 200 and the wrong body is."""
    if isinstance(error, TooLargeError):
        return Failure("RESPONSE_TOO_LARGE", clean_text(str(error)), http_status=status)
    return Failure(error.reason, clean_text(str(error)), http_status=status, retryable=True)


def failure_of_exception(error: BaseException) -> Failure:
    """Return the failure that a transport's exception is, whichever transport it was.

    Looks at what lies beneath first.
    """
    chain = _chain(error)
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # A subclass of another library may have no verify_message.
            why = clean_text(getattr(cause, "verify_message", "") or str(cause))
            return Failure("TLS_CERTIFICATE", f"the TLS certificate cannot be verified ({why})", fatal=True)
        if isinstance(cause, socket.gaierror):
            return _no_answer("DNS_FAILED", "the host name cannot be resolved", cause)
        if isinstance(cause, ssl.SSLError):
            return _no_answer("TLS", "no TLS connection", cause)
    if any(isinstance(cause, TimeoutError) for cause in chain):
        return _no_answer("TIMEOUT", "no answer in time", error)
    if any(isinstance(cause, ConnectionRefusedError | NoConnectionError) for cause in chain):
        return _no_answer("CONNECTION_FAILED", "no connection", chain[-1])
    return _no_answer("CONNECTION_LOST", "connection lost", chain[-1])


def bug_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """Return what to say of an exception that nobody foresaw: what it is, and where it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__} ({clean_text(redact(str(error)))})"
    return f"a bug: {said} in {where.name}, {where.filename}:{where.lineno}; please report it"


def error_of(
    failure: Failure, label: str, *, run_id: str, attempts: int, seconds: float, redact: Callable[[str], str]
) -> PipelineError:
    """Return the error to raise for a failure that is final, saying what to do about it."""
    text = redact(failure.text)
    request = f", request {failure.request_id}" if failure.request_id else ""
    if failure.reason == "TLS_CERTIFICATE":
        return ApiError(f"{label}: {text}; {_TLS_ADVICE}")
    if failure.fatal:
        return AccessError(f"{text}{request}; {_ACCESS_ADVICE[failure.http_status or 0]}")
    # A whole endpoint that is gone says nothing about the run: nobody may take it for deleted.
    missing = failure.http_status == 404 and failure.reason != "ENDPOINT_REMOVED"
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return (RunMissingError if missing else RunFailedError)(
        f"{label}: {text} after {tries} ({seconds:.1f} s){request}; {_MISSING_ADVICE if missing else _advice(failure)}",
        run_id=run_id,
        reason=failure.reason,
        http_status=failure.http_status,
        request_id=failure.request_id,
        attempts=attempts,
        retryable=failure.retryable,
    )


def _advice(failure: Failure) -> str:
    if failure.reason in _ADVICE:
        return _ADVICE[failure.reason]
    return "try again later" if failure.retryable else "the API refuses this request, and would again"


def _no_answer(reason: str, text: str, cause: BaseException) -> Failure:
    detail = clean_text(str(cause))
    return Failure(reason, f"{text} ({detail})" if detail else text, retryable=True, outage=True)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain and len(chain) < 20:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _error_body(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


class Backoff:
    """Exponential waits with full jitter: from nothing to base x 2^n seconds, evenly spread, capped."""

    def __init__(self, *, base_s: float = 0.5, cap_s: float = 30.0, rng: random.Random) -> None:
        self.cap_s = cap_s
        self._base_s = base_s
        self._rng = rng

    def wait_s(self, attempts: int, retry_after_s: float | None = None) -> float:
        """Return how long to wait after the nth attempt, at least what the server asked for as far as the cap goes."""
        wait = self._rng.uniform(0, min(self.cap_s, self._base_s * 2 ** min(attempts - 1, 30)))
        return max(wait, min(retry_after_s or 0.0, self.cap_s))


class RetryBudget:
    """Keeps retries from multiplying the load on an API in trouble. An empty budget slows down; it never drops.

    A run that comes earns half a retry: enough for one request in three failing at random, for ever. Beyond what was
    earned and saved, one retry a second leaves in all.
    """

    def __init__(
        self,
        *,
        earned: float = 0.5,
        saved: float = 100.0,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._earned = earned
        self._most = saved
        self._saved = saved
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._next_at = 0.0

    def earn(self) -> None:
        """Take note of a run that came."""
        self._saved = min(self._most, self._saved + self._earned)

    async def spend(self) -> None:
        """Wait until one retry may leave."""
        async with self._turn:
            while self._saved < 1 and (wait := self._next_at - self._clock()) > 0:
                await self._sleep(wait)
            if self._saved >= 1:
                self._saved -= 1
            else:
                self._next_at = self._clock() + 1.0


class Breaker:
    """Sees that nothing answers any more, and lets one probe a second through until something does.

    Opens when `window` failures in a row, over all workers, looked like an outage. A run that goes on failing while
    others come is its own trouble and no sign of an outage. Any real answer closes it. After `max_outage_s` without
    one, everybody gets an OutageError.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        max_outage_s: float,
        window: int = 20,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.answers = 0
        self.is_open = False
        self._concurrency = concurrency
        self._max_outage_s = max_outage_s
        self._window = window
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._streak = 0
        self._since = self._opened_at = 0.0
        self._cause = ""
        self._probing = False
        self._next_probe_at = 0.0
        self._over = False

    @property
    def outage_s(self) -> float:
        """Seconds since the outage began; 0 where there is none."""
        return self._clock() - self._since if self.is_open else 0.0

    @property
    def cause(self) -> str:
        """The last failure's text, for a person."""
        return self._cause

    async def admit(self) -> bool:
        """Wait until a request may leave; true where it is the probe, to be followed by `probe_left`."""
        if self.is_open:
            async with self._turn:
                return await self._wait_for_probe()
        return False

    async def _wait_for_probe(self) -> bool:
        while self.is_open:
            self._check_over()
            if not self._probing and self._clock() >= self._next_probe_at:
                self._probing = True
                return True
            # While a probe waits for the limiter, look now and then whether it has left.
            await self._sleep(0.25 if self._probing else max(0.01, self._next_probe_at - self._clock()))
        return False

    def probe_left(self) -> None:
        """Take note that the probe was sent or given up: the next one may leave in a second."""
        self._probing = False
        self._next_probe_at = self._clock() + 1.0

    def answered(self) -> bool:
        """Take note of a real answer, and return whether that ended an outage."""
        self.answers += 1
        self._streak = 0
        was_open, self.is_open = self.is_open, False
        return was_open

    def failed(self, failure: Failure, *, answers_before: int) -> None:
        """Take note of a failed request of a run; `answers_before` is `answers` as it was at that run's first failure.

        Raises OutageError when the outage has lasted too long. As many answers as there are workers may still have
        been under way when an outage began; more than that, and the run fails by itself.
        """
        now = self._clock()
        self._cause = failure.text
        if failure.outage and self.answers - answers_before <= self._concurrency:
            if self._streak == 0:
                self._since = now
            self._streak += 1
            if self._streak >= self._window and not self.is_open:
                self.is_open = True
                self._opened_at = now
                self._next_probe_at = now + 1.0
        # Not from the first failure on: slow ones alone may have taken as long, and nothing was probed yet.
        if self.is_open and now - self._opened_at >= self._max_outage_s:
            self._over = True
            self._check_over()

    def _check_over(self) -> None:
        if self._over:
            raise OutageError(
                f"the API has not answered for {self._clock() - self._since:.0f} s (last: {self._cause}); what had "
                "arrived is kept: type the same command again to go on where it stopped, once the API answers"
            )
