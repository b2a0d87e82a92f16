"""Where each task of the helper stands: for the message about a request that hangs."""

from __future__ import annotations

import asyncio
from typing import Any

DEEP_MAX = 20


def doing() -> list[str]:
    """A line for each task but the asking one: the functions that it waits in, innermost last."""
    own = asyncio.current_task()
    return sorted(_place(task.get_coro()) for task in asyncio.all_tasks() if task is not own)


def _place(coroutine: Any) -> str:
    """As "_serve:180 > _destroy:255 > run:55 > communicate:200": names and lines."""
    names: list[str] = []
    while coroutine is not None and len(names) < DEEP_MAX:
        # A coroutine, a generator, or an awaitable of C, which names nothing.
        kind = "cr" if hasattr(coroutine, "cr_frame") else "gi"
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is not None:
            names.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        coroutine = getattr(coroutine, "cr_await" if kind == "cr" else "gi_yieldfrom", None)
    return " > ".join(names)
