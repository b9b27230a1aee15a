"""Protect a predictor in trouble from more load: a circuit breaker per address, and a budget for retries."""

from __future__ import annotations

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 1.0
RETRY_SHARE = 0.1
RETRY_RESERVE = 10.0


class Breaker:
    """Opens after some failures in a row; then it lets one request through every OPEN_SECONDS, to try.

    Times are time.monotonic() seconds, given by the caller.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._next_try = self.failed_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are held back, except trials."""
        return self._failures >= FAILURES_TO_OPEN

    def allows(self, now: float) -> bool:
        """Whether a request may be sent now."""
        return not self.is_open or now >= self._next_try

    def enter(self, now: float) -> None:
        """Note that a request is sent; if the breaker is open, it is the one that tries."""
        if self.is_open:
            self._next_try = now + OPEN_SECONDS

    def succeeded(self) -> None:
        """Note that the request was answered."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Note that the request reached no predictor, or got no answer in time."""
        self._failures += 1
        self.failed_at = now
        if self.is_open:
            self._next_try = now + OPEN_SECONDS


class RetryBudget:
    """Limits retries to a share of the requests, with a small reserve for the first moments of trouble.

    Without it, retries would double the load on predictors that are failing because of load.
    Source: Beyer et al., Site Reliability Engineering, chapter 21, "Handling Overload".
    """

    def __init__(self) -> None:
        self._tokens = RETRY_RESERVE

    def earn(self) -> None:
        """Note that a request came in."""
        self._tokens = min(RETRY_RESERVE, self._tokens + RETRY_SHARE)

    def spend(self) -> bool:
        """Take one retry; False if none is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
