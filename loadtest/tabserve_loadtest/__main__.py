"""`python -m tabserve_loadtest`: Locust is imported first, because it patches the standard library for gevent."""

import locust  # noqa: F401, I001
import click
from tabserve_loadtest.cli import main

click.UsageError.exit_code = 64  # EX_USAGE of sysexits.h; click's 2 means TOO FEW SAMPLES here

if __name__ == "__main__":
    main()
