"""Read a module of TLA+ by its layout: its definitions, and each body as a tree of its parts.

Not a parser of TLA+: it knows the lists of /\\ and \\/ (which go by columns), IF, CASE, LET, \\E,
\\A, => and brackets. Everything else is text. Each part knows its place in the body, so that
another text can be put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Form = Literal["list", "chain", "if", "case", "quantifier", "let", "text"]

_COMMENT = re.compile(r"\(\*.*?\*\)|\\\*[^\n]*", re.DOTALL)
_HEAD = re.compile(r"^(\w+)(\([^)\n]*\))? ==", re.MULTILINE)
_END = re.compile(
    r"^(?:-{4,}|={4,}|[A-Z]+ [A-Z]+|CONSTANTS?|VARIABLES?|ASSUME|LOCAL|\S)", re.MULTILINE
)
_TOKEN = re.compile(
    r'"[^"]*"|/\\|\\/|=>|\|->|->|\[\]|<<|>>_?|[\[\](){},:]|\\[A-Za-z]+|==|[A-Za-z_]\w*\'?|\d+|\S'
)
_OPEN = {"(": ")", "[": "]", "{": "}", "<<": ">>"}
_CLOSE = {")", "]", "}", ">>", ">>_"}
_JUNCTIONS = {"/\\", "\\/"}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a body: `first` to `last` are offsets in it."""

    form: Form
    first: int
    last: int
    parts: tuple[Part, ...] = ()
    """Of a list or chain its items; of IF the condition and both branches; of CASE guard and
    value in turn; of the others what stands inside."""
    joined_by: str = ""
    """Of a list or chain: /\\, \\/ or =>."""
    bullets: bool = False

    def text(self, body: str) -> str:
        """What stands there."""
        return body[self.first : self.last]

    def every(self) -> Iterator[Part]:
        """This part and all inside of it, in the order of the text."""
        yield self
        for part in self.parts:
            yield from part.every()


@dataclass(frozen=True, slots=True)
class Definition:
    """An operator at the left margin."""

    name: str
    parameters: str
    """With the parentheses, or empty."""
    body: str
    """As it stands, comments blanked out, the first line indented to its own column."""
    start: int
    """Offsets in the module, from the name to the end of the body."""
    end: int

    @property
    def tree(self) -> Part:
        """The body's parts."""
        return _Reader(self.body).whole()

    def as_text(self, name: str = "", body: str = "") -> str:
        """The definition, under another name or with another body."""
        return f"{name or self.name}{self.parameters} ==\n{body or self.body}\n"


def without_comments(text: str) -> str:
    """The same text, blanks in the place of comments."""
    return _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def definitions(text: str) -> dict[str, Definition]:
    """All definitions of a module, by name, in their order."""
    bare = without_comments(text)
    found = {}
    for head in _HEAD.finditer(bare):
        after = _END.search(bare, bare.index("\n", head.end()))
        end = after.start() if after else len(bare)
        column = head.end() - bare.rfind("\n", 0, head.end()) - 1
        body = (" " * column + bare[head.end() : end]).rstrip().lstrip("\n")
        body = "\n".join(line.rstrip() for line in body.split("\n")).lstrip("\n")
        found[head[1]] = Definition(head[1], head[2] or "", body, head.start(), end)
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    first: int
    last: int
    line: int
    column: int


class _Reader:
    """One body, from left to right."""

    def __init__(self, body: str) -> None:
        lines = [0]
        for found in re.finditer("\n", body):
            lines.append(found.end())
        self.tokens: list[_Token] = []
        line = 0
        for found in _TOKEN.finditer(body):
            while line + 1 < len(lines) and lines[line + 1] <= found.start():
                line += 1
            token = _Token(found[0], *found.span(), line, found.start() - lines[line])
            self.tokens.append(token)
        self.at = 0
        self.margins: list[tuple[int, int]] = []
        """Line and column of each open list: what stands at or left of its column ends it."""

    def whole(self) -> Part:
        part = self.expression()
        assert self.at == len(self.tokens), self.tokens[self.at]
        return part

    def peek(self) -> str:
        """The next token, empty where the innermost list ends."""
        if self.at == len(self.tokens):
            return ""
        token = self.tokens[self.at]
        for line, column in self.margins:
            if token.line > line and token.column <= column:
                return ""
        return token.text

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> None:
        assert self.peek() == text, (text, self.tokens[self.at : self.at + 3])
        self.at += 1

    @property
    def here(self) -> int:
        return self.tokens[self.at].first

    @property
    def behind(self) -> int:
        return self.tokens[self.at - 1].last

    def expression(self) -> Part:
        first = self.here
        left = self.chain()
        if self.peek() != "=>":
            return left
        self.take()
        right = self.chain()
        return Part("chain", first, self.behind, (left, right), "=>")

    def chain(self) -> Part:
        if self.peek() in _JUNCTIONS:
            return self.bullets()
        first = self.here
        parts = [self.operand()]
        joined = ""
        while self.peek() in _JUNCTIONS:
            joined = self.take().text
            parts.append(self.operand())
        if not joined:
            return parts[0]
        return Part("chain", first, self.behind, tuple(parts), joined)

    def bullets(self) -> Part:
        bullet = self.tokens[self.at]
        parts: list[Part] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            same = token.text == bullet.text and token.column == bullet.column
            if not same or (parts and token.line == bullet.line) or not self.peek():
                break
            self.take()
            self.margins.append((token.line, token.column))
            parts.append(self.expression())
            self.margins.pop()
        return Part("list", bullet.first, self.behind, tuple(parts), bullet.text, bullets=True)

    def operand(self) -> Part:
        first = self.here
        inner: list[Part] = []
        while True:
            text = self.peek()
            if text in ("", "THEN", "ELSE", "IN", "[]", "->", "=>", ",", ":", *_JUNCTIONS, *_CLOSE):
                break
            part = self.special(text)
            if part is None:
                inner += self.plain(text)
            elif part.first == first:
                return part
            else:
                inner.append(part)
        assert self.behind > first, self.tokens[self.at : self.at + 3]
        return Part("text", first, self.behind, tuple(inner))

    def special(self, text: str) -> Part | None:
        if text == "IF":
            return self.if_()
        if text == "CASE":
            return self.case()
        if text == "LET":
            return self.let()
        if text in ("\\E", "\\A"):
            return self.quantifier()
        return None

    def plain(self, text: str) -> list[Part]:
        """One token, or a pair of brackets and what is inside."""
        self.take()
        if text not in _OPEN:
            return []
        parts: list[Part] = []
        while self.peek() not in _CLOSE:
            if self.peek() in (",", ":", "->", "[]"):
                self.take()
            else:
                parts.append(self.expression())
        self.take()
        return parts

    def if_(self) -> Part:
        first = self.here
        self.expect("IF")
        condition = self.expression()
        self.expect("THEN")
        then = self.expression()
        self.expect("ELSE")
        otherwise = self.expression()
        return Part("if", first, self.behind, (condition, then, otherwise))

    def case(self) -> Part:
        first = self.here
        self.expect("CASE")
        parts: list[Part] = []
        while True:
            parts.append(self.expression())
            self.expect("->")
            parts.append(self.expression())
            if self.peek() != "[]":
                return Part("case", first, self.behind, tuple(parts))
            self.take()

    def let(self) -> Part:
        first = self.here
        while self.peek() != "IN":
            self.take()
        self.take()
        body = self.expression()
        return Part("let", first, self.behind, (body,))

    def quantifier(self) -> Part:
        first = self.here
        while self.peek() != ":":
            self.take()
        self.take()
        body = self.expression()
        return Part("quantifier", first, self.behind, (body,))
