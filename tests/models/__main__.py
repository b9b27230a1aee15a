"""Walk all models, and write the table of outcomes and docs/models.md: `make models`."""

from __future__ import annotations

from tests.models import document, outcomes


def main() -> None:
    """Print how many are right, refused, wrong, raised and unfit."""
    found = outcomes.walk_all()
    outcomes.TABLE.write_text(outcomes.written(found))
    document.PAGE.write_text(document.page(found))
    print(outcomes.summary(found))


if __name__ == "__main__":
    main()
