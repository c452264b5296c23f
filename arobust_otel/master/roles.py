"""Entry point of a role's process: ``python -m arobust_otel.master.roles receive``.

Its orders come on standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module

from arobust_otel.errors import ConfigurationError
from arobust_otel.master.control import Control, log
from arobust_otel.master.wire import Orders

RECEIVE, JUDGE, DELIVER = "receive", "judge", "deliver"
ROLES = (RECEIVE, JUDGE, DELIVER)

Run = Callable[[Orders, Control], Awaitable[int]]


def configure_logging() -> None:
    """Lines on standard error; uvicorn's own about bad requests are counted, not logged."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    for name in ("uvicorn", "uvicorn.error", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(name: str) -> int:
    """Run one role to its end; returns the exit code."""
    configure_logging()
    stdin = os.fdopen(0, "rb", buffering=0, closefd=False)
    orders = Orders.from_line(stdin.readline())
    run: Run = getattr(import_module(f"arobust_otel.master.{name}"), f"run_{name}")

    async def role() -> int:
        return await run(orders, Control(stdin))

    try:
        return asyncio.run(role())
    except ConfigurationError as error:
        log.error("%s: %s", name, error)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
