"""The floor of REST on uvicorn: reads the request, always answers the same bytes, does nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn


def main(port: str, answer: str) -> None:
    """Serve the bytes of the file `answer` on 127.0.0.1:port."""
    body = Path(answer).read_bytes()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(
        application, host="127.0.0.1", port=int(port), http="httptools", loop="uvloop", lifespan="off",
        log_level="error", access_log=False, server_header=False, date_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
