"""Download models: `entrypoint.py SOURCE DESTINATION [SOURCE DESTINATION …]`, as KServe 0.20 calls its initializer."""

import sys
from pathlib import Path

from kserve_storage import Storage


def main(arguments: list[str]) -> None:
    """Download each source to its destination; a failure ends the init container with its traceback."""
    if not arguments or len(arguments) % 2:
        raise SystemExit("expected pairs of SOURCE and DESTINATION")
    sources, destinations = arguments[::2], arguments[1::2]
    for destination in destinations:
        Path(destination).mkdir(parents=True, exist_ok=True)
    Storage.download_files(sources, destinations)


if __name__ == "__main__":
    main(sys.argv[1:])
