"""Find out what a count of requests over a limit proves, by the binomial distribution, for any latencies.

Of `n` independent requests, the number slower than the true quantile q is binomial (n, 1 - q). So a bound on the count
is a bound on the quantile, for any distribution. With none over the limit it is MLPerf Inference's early-stopping rule
(https://github.com/mlcommons/inference_policies, "Early Stopping Criterion"): 459 requests for p99 at 99 %.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt


def most_over(n: int, share: float, confidence: float) -> int:
    """The most requests out of `n` that may be over a limit if it is still proven that fewer than `share` of all are.

    -1 if `n` is too small to prove it even with none over.
    """
    return int(np.searchsorted(_cumulative(n, share), 1 - confidence, side="right")) - 1


def least_over(n: int, share: float, confidence: float) -> int:
    """The fewest requests out of `n` over a limit that prove that more than `share` of all are; `n` + 1 if none do."""
    at_most = _cumulative(n, share)
    # P(X >= k) = 1 - P(X <= k - 1)
    return min(int(np.searchsorted(at_most, confidence, side="left")) + 1, n + 1)


def least_requests(over: int, share: float, confidence: float) -> int:
    """The fewest requests that, with `over` of them over the limit, prove that fewer than `share` of all are."""
    high = max(1, over)
    while most_over(high, share, confidence) < over:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if most_over(middle, share, confidence) >= over else (middle, high)
    return high


@lru_cache(maxsize=64)
def _cumulative(n: int, share: float) -> npt.NDArray[np.float64]:
    """P(X <= k) of a binomial (n, share) for k = 0 … until it is 1, from the ratios of its terms."""
    last = min(n, math.ceil(n * share + 10 * math.sqrt(n * share * (1 - share)) + 20))
    k = np.arange(last)
    steps = np.log((n - k) / (k + 1)) + math.log(share / (1 - share))
    logs = n * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    cumulative: npt.NDArray[np.float64] = np.minimum(np.cumsum(np.exp(logs)), 1.0)
    return cumulative
