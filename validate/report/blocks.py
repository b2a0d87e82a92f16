"""What a report's page is made of. The template knows these kinds and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from markupsafe import Markup

Tone: TypeAlias = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Points:
    """A list of short sentences."""

    items: tuple[str, ...]
    kind: Literal["points"] = "points"


@dataclass(frozen=True)
class Table:
    """A table: the first cell of each row is that row's heading."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    """Columns after the first hold numbers, aligned to the right."""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Beside:
    """Tables beside each other, as far as there is room."""

    tables: tuple[Table, ...]
    kind: Literal["beside"] = "beside"


@dataclass(frozen=True)
class Picture:
    """A picture with its caption below."""

    picture: Markup
    caption: str
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True)
class Code:
    """Text to be read or typed as it stands."""

    caption: str
    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class LaneRow:
    """One record in a picture of both lanes."""

    side: Literal["sender", "receiver"]
    record: str
    time: str
    action: str
    """The step of the spec that it shows, if any."""
    what: str
    note: str
    """What is to be seen here, if anything."""


@dataclass(frozen=True)
class Lanes:
    """The records of both sides around a place, the sender's to the left."""

    caption: str
    sender: str
    receiver: str
    rows: tuple[LaneRow, ...]
    kind: Literal["lanes"] = "lanes"


Block: TypeAlias = Text | Points | Table | Beside | Picture | Code | Lanes


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Badge:
    """One word of the verdict. The word says it all; the tone only colours it."""

    label: str
    value: str
    tone: Tone


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    banner: str
    headline: str
    tone: Tone
    badges: tuple[Badge, ...]
    explanation: tuple[str, ...]
    sections: tuple[Section, ...] = field(default=())
