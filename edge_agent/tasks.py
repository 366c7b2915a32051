"""Running tasks together, and ending them for certain.

A library may swallow a cancellation: ``asyncio.wait_for`` of Python 3.11 does when its result comes
at the same moment, and pymodbus and aiomqtt both use it. A task group cancels once and would then
wait for ever.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]


async def together(work: Mapping[str, Work], patience_s: float) -> None:
    """Run all of ``work`` by name until all is done or one fails; end the rest; raise what failed first.

    A task that goes on after its cancellation is cancelled again every ``patience_s``, which must
    be longer than an orderly end takes.
    """
    tasks = [asyncio.create_task(start(), name=name) for name, start in work.items()]
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end(tasks, patience_s)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _end(tasks: "list[asyncio.Task[None]]", patience_s: float) -> None:
    cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=patience_s)
        except asyncio.CancelledError:
            cancelled = True  # and still nothing is left behind
    for task in tasks:
        if not task.cancelled():
            task.exception()  # read, lest asyncio complain that nobody did
    if cancelled:
        raise asyncio.CancelledError
