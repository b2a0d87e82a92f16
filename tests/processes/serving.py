"""Serves calls of a test in a process of its own: one JSON object a line each way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]


def serve(functions: Mapping[str, Function]) -> None:
    """Answer {"call", "arguments"} with {"value"} or {"error"} until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            arguments = [decode(argument) for argument in request["arguments"]]
            answer = {"value": encode(functions[request["call"]](*arguments))}
        except Exception as error:
            answer = {
                "error": {
                    "type": type(error).__name__,
                    "message": str(error),
                    "call": getattr(error, "call", None),
                    "errno": getattr(error, "errno", None),
                }
            }
        print(json.dumps(answer), flush=True)


def encode(value: Any) -> Any:
    """Bytes become {"hex": ...}; lists and tuples are gone through."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """The other way round."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value
