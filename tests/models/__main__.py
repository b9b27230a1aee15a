"""Walk the models, and write the table of outcomes and docs/models.md: `make models`, `make models OF=Ridge`."""

from __future__ import annotations

import sys

from tests.models import document, outcomes
from tests.models.roster import cases


def main(of: str = "") -> None:
    """Print how many cases are right, refused, wrong, raised, unfit; cases without this text in their key stay."""
    found = {one.key: one for one in outcomes.walk_all(of)}
    known = outcomes.read() if of else {}
    table = [found.get(case.key) or known[case.key] for case in cases()]
    outcomes.TABLE.write_text(outcomes.written(table))
    document.PAGE.write_text(document.page(table))
    print(outcomes.summary(table))


if __name__ == "__main__":
    main(*sys.argv[1:])
