"""`python -m tabserve_loadtest`: Locust comes first, since it makes the standard library wait the way gevent does."""

import locust  # noqa: F401, I001
import click
from tabserve_loadtest.cli import main

click.UsageError.exit_code = 64  # EX_USAGE of sysexits.h; click's 2 means TOO FEW SAMPLES here

if __name__ == "__main__":
    main()
