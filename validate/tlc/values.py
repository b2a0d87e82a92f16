"""TLA+ values as TLC prints them, read and written.

Booleans, integers, strings, sequences and functions from strings: what a spec of a protocol keeps
in its variables. A function from strings is a frozenset of pairs, as in `validate.lanes.Value`.
"""

from __future__ import annotations

import re

from vchan_testbed.validate.lanes import Value

_TOKEN = re.compile(r'\s*(<<|>>|\|->|:>|@@|[\[\](){},]|-?\d+|"(?:[^"\\]|\\.)*"|\w+)')


def parse_value(text: str) -> Value:
    """The value that `text` writes. Raises ValueError when it writes none, or more than one."""
    tokens = _tokens(text)
    try:
        value, rest = _value(tokens, 0)
    except IndexError as error:
        raise ValueError(f"a TLA+ value ends too early: {text!r}") from error
    if rest != len(tokens):
        raise ValueError(f"more than one TLA+ value: {text!r}")
    return value


def format_value(value: Value) -> str:
    """The TLA+ expression for a value."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"<<{', '.join(format_value(part) for part in value)}>>"
    pairs = (f'"{key}" :> {format_value(part)}' for key, part in sorted(value, key=_key))
    return f"({' @@ '.join(pairs)})"


def _key(pair: tuple[str, Value]) -> str:
    return pair[0]


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not a TLA+ value at {at}: {text!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


def _value(tokens: list[str], at: int) -> tuple[Value, int]:
    token = tokens[at]
    if token == "<<":
        return _sequence(tokens, at + 1)
    if token == "(":
        return _function(tokens, at + 1, ")", "@@", ":>")
    if token == "[":
        return _function(tokens, at + 1, "]", ",", "|->")
    if token in ("TRUE", "FALSE"):
        return token == "TRUE", at + 1
    if token[0] == '"':
        return token[1:-1], at + 1
    return int(token), at + 1


def _sequence(tokens: list[str], at: int) -> tuple[Value, int]:
    parts: list[Value] = []
    while tokens[at] != ">>":
        part, at = _value(tokens, at)
        parts.append(part)
        if tokens[at] == ",":
            at += 1
    return tuple(parts), at + 1


def _function(tokens: list[str], at: int, end: str, comma: str, arrow: str) -> tuple[Value, int]:
    pairs: list[tuple[str, Value]] = []
    while tokens[at] != end:
        key = tokens[at].strip('"')
        if tokens[at + 1] != arrow:
            raise ValueError(f"a TLA+ function without {arrow}")
        part, at = _value(tokens, at + 2)
        pairs.append((key, part))
        if tokens[at] == comma:
            at += 1
    return frozenset(pairs), at + 1
