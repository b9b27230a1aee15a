"""`python -m loadtest`: Locust is imported first, since that makes the standard library wait the way gevent does."""

import locust  # noqa: F401, I001
from loadtest.cli import main

if __name__ == "__main__":
    main()
