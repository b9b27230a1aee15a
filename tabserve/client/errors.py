"""What a client raises."""

from __future__ import annotations


class ServiceError(Exception):
    """The service's answer was an error, or there was none; the message is for the user.

    retry_after: seconds after which the same request may succeed; None if it would fail again.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
