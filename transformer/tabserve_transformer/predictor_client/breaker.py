"""What keeps a predictor in trouble from more of it: a circuit breaker per address, and a budget for retries."""

from __future__ import annotations

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 1.0
RETRY_SHARE = 0.1
RETRY_RESERVE = 10.0


class Breaker:
    """Opens after some failures in a row; open, it lets one request through every OPEN_SECONDS to try.

    Times are time.monotonic() seconds, given by the caller.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._next_try = 0.0

    def allows(self, now: float) -> bool:
        """Whether a request may be sent now."""
        return self._failures < FAILURES_TO_OPEN or now >= self._next_try

    def enter(self, now: float) -> None:
        """A request is sent: of an open breaker it is the one that tries."""
        if self._failures >= FAILURES_TO_OPEN:
            self._next_try = now + OPEN_SECONDS

    def succeeded(self) -> None:
        """The request was answered."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """The request found nobody, or got no answer in time."""
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._next_try = now + OPEN_SECONDS


class RetryBudget:
    """Retries are at most a share of the requests, with a small reserve for the first moments of trouble.

    Without it, retries would double the load on predictors that are failing because of load.
    Source: Beyer et al., Site Reliability Engineering, chapter 21, "Handling Overload".
    """

    def __init__(self) -> None:
        self._tokens = RETRY_RESERVE

    def earn(self) -> None:
        """A request came in."""
        self._tokens = min(RETRY_RESERVE, self._tokens + RETRY_SHARE)

    def spend(self) -> bool:
        """Take one retry; False where none is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
