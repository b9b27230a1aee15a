"""Payments of a day, made up by a seeded generator; in the third week they change."""

from __future__ import annotations

import numpy as np
import pandas as pd

START = np.datetime64("2026-06-01T00:00:00")
"""The first day of the first week, a Monday."""
WEEK = 7
CHANGES = 2 * WEEK
"""The first day of the third week: from then on amounts are twice as large, and the web is riskier."""


def of_day(day: int, count: int) -> pd.DataFrame:
    """So many payments of a day, and in `outcome` what they turn out to be. day: from the first one, or before it."""
    random = np.random.default_rng(1_000 + day)
    changed = day >= CHANGES
    paid = START + np.timedelta64(day, "D") + random.integers(0, 86_400, count).astype("timedelta64[s]")
    days = random.exponential(400, count)
    payments = pd.DataFrame(
        {
            "payment": [f"{day:+d}-{at}" for at in range(count)],
            "amount": (random.gamma(1.2, 80, count) * (2 if changed else 1)).round(2),
            "country": random.choice(
                ["DE", "ES", "FR", "IT", "NL", "other"], count, p=[0.4, 0.15, 0.2, 0.1, 0.1, 0.05]
            ),
            "channel": random.choice(["app", "shop", "web"], count),
            "opened": paid - (days * 86_400).astype("timedelta64[s]"),
            "paid": paid,
            "purchases": random.poisson(np.minimum(days, 90) / 10),
            "age": random.choice(["18 to 29", "30 to 59", "from 60"], count, p=[0.3, 0.5, 0.2]),
        }
    )
    hour = paid.astype("datetime64[h]").astype(int) % 24
    risk = -2.8 + payments.amount / 120 - np.minimum(days, 365) / 120 + 1.5 * (hour < 5)
    risk += (4.0 if changed else 1.2) * (payments.channel == "web") + 1.5 * (payments.country == "other")
    fraud = random.random(count) < 1 / (1 + np.exp(0.1 * payments.purchases - risk))
    return payments.assign(outcome=np.where(fraud, "fraud", "genuine"))


def of_days(first: int, last: int, count: int) -> pd.DataFrame:
    """The payments of several days, the last one included."""
    return pd.concat([of_day(day, count) for day in range(first, last + 1)], ignore_index=True)
