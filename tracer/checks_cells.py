"""Each cell of the shared page over both ends of a channel: do the values chain?

An index has one writer and only grows, so a value that is read names the write it came from. The
values of a notify byte repeat, but of each of its bits only the one side sets it and only the
other clears it: the n-th setting comes before the n-th clearing, and that before the next setting.

Source: struct vchan_interface and tools/libs/vchan/{init,io}.c, Xen 4.17.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vchan_testbed.tracer.checks_order import Edges
from vchan_testbed.tracer.checks_parts import (
    READS,
    WRITES,
    Indices,
    Mask,
    Numbers,
    Problem,
    Side,
    is_any,
    signed,
)
from vchan_testbed.tracer.layout import Cell, Flag, Kind

WRAP = 1 << 32
FAR = 1 << 31
NOT_CONNECTED, LIVE, DEAD = 2, 1, 0


@dataclass
class Cells:
    """What was found: problems, and which record must have come before which."""

    server: Side
    client: Side
    problems: list[Problem] = field(default_factory=list)
    _server_first: list[tuple[Indices, Indices]] = field(default_factory=list)
    _client_first: list[tuple[Indices, Indices]] = field(default_factory=list)

    def report(self, side: Side, places: Indices, rule: str, text: str) -> None:
        """One problem for each place; {old} and {new} in the text are the record's."""
        for place in places:
            record = side.records[place]
            shown = text.format(old=int(record["old"]), new=int(record["new"]))
            self.problems.append(Problem(side.role, int(place), rule, shown))

    def before(self, side: Side, first: Indices, second: Indices) -> None:
        """`side`'s records at `first` came before the other end's at `second`."""
        (self._server_first if side is self.server else self._client_first).append((first, second))

    @property
    def edges(self) -> Edges:
        """All of it, for the check of the order."""
        return Edges(_joined(self._server_first), _joined(self._client_first))


def _joined(pairs: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    nothing = np.empty(0, dtype=np.intp)
    return (
        np.concatenate([nothing, *(first for first, _ in pairs)]),
        np.concatenate([nothing, *(second for _, second in pairs)]),
    )


def cell_problems(server: Side, client: Side) -> Cells:
    """Check all cells of the channel whose ends these are."""
    cells = Cells(server, client)
    orders = server.orders()
    if orders is None:
        # It failed or was cut off within its init: what else it stored is not known.
        return cells
    _orders(cells)
    _prepared(cells)
    left, right = (1 << order for order in orders)
    _ring(cells, client, Cell.LEFT_PROD, server, Cell.LEFT_CONS, left)
    _ring(cells, server, Cell.RIGHT_PROD, client, Cell.RIGHT_CONS, right)
    _live(cells, client, server, Cell.CLI_LIVE, NOT_CONNECTED)
    _live(cells, server, client, Cell.SRV_LIVE, LIVE)
    for bit in (1, 2):
        _notify_bit(cells, server, client, Cell.CLI_NOTIFY, bit)
        _notify_bit(cells, client, server, Cell.SRV_NOTIFY, bit)
    return cells


def _orders(cells: Cells) -> None:
    server, client = cells.server, cells.client
    for cell in (Cell.LEFT_ORDER, Cell.RIGHT_ORDER):
        stored = server.in_init(cell)
        if not len(stored):
            continue
        value = int(server.records["new"][stored[-1]])
        for side in (server, client):
            places = side.on_cell(cell)
            seen = side.records["old"][places]
            cells.report(
                side, places[seen != value], "R15", f"An order that is {value} reads {{old}}."
            )
            written = is_any(side.records["kind"][places], WRITES)
            cells.report(side, places[written], "R15", "An order is written after the init.")
    one, other = server.orders(), client.orders()
    if one and other and one != other:
        place = client.first(Kind.ATTACH)
        text = f"The client takes the orders for {other}, the server for {one}."
        cells.problems.append(Problem("client", place, "R15", text))


# ---- indices ----


def _prepared(cells: Cells) -> None:
    """Rings whose indices the application set have to be empty and not used by anybody before."""
    server, client = cells.server, cells.client
    places = server.prepared
    if not len(places):
        return
    text = "An index that is to begin with {new} was {old}: its ring was used already."
    cells.report(server, places[server.records["old"][places] != 0], "R1", text)
    for prod, cons in ((Cell.LEFT_PROD, Cell.LEFT_CONS), (Cell.RIGHT_PROD, Cell.RIGHT_CONS)):
        written, read = server.first_index(prod), server.first_index(cons)
        if written != read:
            text = f"A ring begins with {written} as its prod and {read} as its cons: not empty."
            cells.problems.append(Problem(server.role, int(places[-1]), "R1", text))
    _all_before(cells, server, places[-1:], client.accesses[:1])


@dataclass(frozen=True)
class _Index:
    """One index over the whole run: its value in 64 bits after each write by its owner."""

    owner: Side
    writes: Indices
    values: Numbers
    """values[0] is what it begins with, values[n] comes of writes[n-1]."""
    by_one_thread: bool


def _ring(
    cells: Cells, sender: Side, prod_cell: Cell, receiver: Side, cons_cell: Cell, ring_bytes: int
) -> None:
    prod = _index(cells, sender, receiver, prod_cell, ring_bytes)
    cons = _index(cells, receiver, sender, cons_cell, ring_bytes)
    if prod is None or cons is None:
        return
    put, taken = (int(index.values[-1] - index.values[0]) for index in (prod, cons))
    if taken > put and sender.ends_complete:
        text = f"{taken} bytes were taken out of a ring that {put} were put into."
        cells.problems.append(Problem(receiver.role, int(cons.writes[-1]), "R1", text))
    if put > taken + ring_bytes and receiver.ends_complete:
        text = f"{put} bytes were put into a ring of {ring_bytes} that {taken} were taken out of."
        cells.problems.append(Problem(sender.role, int(prod.writes[-1]), "R1", text))


def _index(cells: Cells, owner: Side, peer: Side, cell: Cell, ring_bytes: int) -> _Index | None:
    """Check one index. None if it cannot be followed."""
    own, others = owner.on_cell(cell), peer.on_cell(cell)
    if any((side.records["width"][at] != 4).any() for side, at in ((owner, own), (peer, others))):
        # Written or read in parts: no compiler does that, and no value names its write then.
        return None
    foreign = others[is_any(peer.records["kind"][others], WRITES)]
    cells.report(peer, foreign, "R1", "An index is moved to {new} by the side that must not.")
    index = _written(cells, owner, own, ring_bytes, cells.server.first_index(cell))
    if index is None or len(foreign):
        return None
    _own_loads(cells, index, own)
    _peer_loads(cells, index, peer, others)
    return index


def _written(cells: Cells, owner: Side, own: Indices, ring_bytes: int, first: int) -> _Index | None:
    records = owner.records
    writes = own[is_any(records["kind"][own], WRITES)]
    old, new = signed(records["old"][writes]), signed(records["new"][writes])
    unknown = records["flags"][writes] & Flag.OLD_UNKNOWN != 0
    by_one_thread = len(np.unique(records["thread"][writes])) <= 1
    if unknown.any() and not by_one_thread:
        return None
    old = np.where(unknown, np.append(first, new[:-1])[: len(new)], old)
    steps = (new - old) % WRAP
    far = steps > ring_bytes
    cells.report(owner, writes[far], "R1", "An index jumps from {old} to {new}, beyond its ring.")
    if not by_one_thread:
        # Which thread came first is not known; sums still are.
        left_over = _left_over(np.append(new, first), old)
        if left_over != 1:
            text = "The values that two threads stored in one index do not follow on each other."
            cells.problems.append(Problem(owner.role, int(writes[0]), "log", text))
            return None
        return _Index(owner, writes, first + np.append(0, np.sort(np.cumsum(steps))), False)
    before = np.append(first, new[:-1]) if len(new) else new
    wrong = old != before
    cells.report(owner, writes[wrong], "log", "An index is moved from {old}, where it was not.")
    if wrong.any() or far.any():
        return None
    return _Index(owner, writes, first + np.append(0, np.cumsum(steps)), True)


def _left_over(more: Numbers, fewer: Numbers) -> int:
    """How many of `more` have no partner among `fewer`; -1 if it is not only those."""
    values, inverse = np.unique(np.concatenate([more, fewer]), return_inverse=True)
    counts = np.bincount(inverse[: len(more)], minlength=len(values))
    counts -= np.bincount(inverse[len(more) :], minlength=len(values))
    return -1 if (counts < 0).any() else int(counts.sum())


def _own_loads(cells: Cells, index: _Index, own: Indices) -> None:
    """What the writer reads of its own index is what it wrote last."""
    records = index.owner.records
    loads = own[is_any(records["kind"][own], READS)]
    if not index.by_one_thread or (
        len(index.writes) and (records["thread"][loads] != records["thread"][index.writes[0]]).any()
    ):
        return
    latest = index.values[np.searchsorted(index.writes, loads)]
    wrong = signed(records["old"][loads]) != latest % WRAP
    cells.report(index.owner, loads[wrong], "log", "An own index reads {old}, but was not that.")


def _peer_loads(cells: Cells, index: _Index, peer: Side, others: Indices) -> None:
    """What the other side reads was written, in that order, and had not been overwritten."""
    records = peer.records
    loads = others[is_any(records["kind"][others], READS)]
    threads = np.unique(records["thread"][loads])
    first = int(index.values[0])
    if not index.by_one_thread or (index.values[-1] - first >= WRAP and len(threads) > 1):
        # With more than 4 GiB it is not known where in the stream a thread came in.
        return
    for thread in threads:
        own = loads[records["thread"][loads] == thread]
        seen = signed(records["old"][own])
        steps = np.diff(np.append(first, seen)) % WRAP
        backwards = steps >= FAR
        cells.report(peer, own[backwards], "R1", "An index reads {old}, less than it did before.")
        if not backwards.any():
            _match(cells, index, peer, own, first + np.cumsum(steps))


def _match(cells: Cells, index: _Index, peer: Side, loads: Indices, seen: Numbers) -> None:
    first = np.searchsorted(index.values, seen, side="left")
    following = np.searchsorted(index.values, seen, side="right")
    beyond = first == len(index.values)
    known = ~beyond & (index.values[np.where(beyond, 0, first)] == seen)
    # Of an endpoint that was cut off the last writes may not be in the log.
    allowed = known | (beyond & (not index.owner.ends_complete))
    text = "An index reads {old}, which was never written."
    cells.report(peer, loads[~allowed], "log", text)
    written = known & (first > 0)
    cells.before(index.owner, index.writes[first[written] - 1], loads[written])
    overwritten = known & (following < len(index.values))
    cells.before(peer, loads[overwritten], index.writes[following[overwritten] - 1])


# ---- live bytes ----


def _live(cells: Cells, owner: Side, peer: Side, cell: Cell, start: int) -> None:
    own, others = owner.on_cell(cell), peer.on_cell(cell)
    records = owner.records
    writes = own[is_any(records["kind"][own], WRITES)]
    foreign = others[is_any(peer.records["kind"][others], WRITES)]
    cells.report(peer, foreign, "R8", "A live byte is set to {new} by the other side.")
    stages = np.append(start, signed(records["new"][writes]))
    known = records["flags"][writes] & Flag.OLD_UNKNOWN == 0
    wrong = known & (stages[:-1] != signed(records["old"][writes])) | (stages[1:] >= stages[:-1])
    cells.report(owner, writes[wrong], "R8", "A live byte goes from {old} to {new}.")
    if wrong.any() or len(foreign):
        return
    _live_loads(cells, owner, peer, others, writes, stages)


def _live_loads(
    cells: Cells, owner: Side, peer: Side, loads: Indices, writes: Indices, stages: Numbers
) -> None:
    seen = signed(peer.records["old"][loads])
    threads = peer.records["thread"][loads]
    for thread in np.unique(threads):
        own, values = loads[threads == thread], seen[threads == thread]
        rising = np.append(False, values[1:] > values[:-1]) | (values > stages[0])
        cells.report(peer, own[rising], "R8", "A live byte reads {old}, more than it did before.")
    for at, value in enumerate(stages):
        same = loads[seen == value]
        if at > 0:
            _all_before(cells, owner, writes[at - 1 : at], same)
        if at + 1 < len(stages):
            _all_before(cells, peer, same, writes[at : at + 1])
    # 1 has to be written; 0 comes of the process's end as well.
    if owner.ends_complete and LIVE not in stages:
        text = "A live byte reads 1, which was never written."
        cells.report(peer, loads[seen == LIVE], "log", text)


def _all_before(cells: Cells, side: Side, first: Indices, second: Indices) -> None:
    first, second = np.broadcast_arrays(first, second)
    cells.before(side, first, second)


# ---- notify bytes ----


def _notify_bit(cells: Cells, setter: Side, clearer: Side, cell: Cell, bit: int) -> None:
    """The bit in `cell` by which `setter` asks `clearer` for events."""
    init = cells.server.in_init(cell)
    if not len(init):
        return
    start = int(cells.server.records["new"][init[-1]]) & bit != 0
    up, down = _Flips.of(setter, cell, bit), _Flips.of(clearer, cell, bit)
    cells.report(setter, up.places[up.falls], "R4", "A notify bit is cleared by who asked for it.")
    cells.report(clearer, down.places[down.rises], "R4", "A notify bit is set by the wrong side.")
    if up.falls.any() or down.rises.any():
        return
    ups, downs = int(up.rises.sum()) + start, int(down.falls.sum())
    if downs > ups and setter.ends_complete:
        place = down.places[down.falls][ups]
        text = f"The bit {bit} is cleared {downs} times, but set only {ups} times."
        cells.problems.append(Problem(clearer.role, int(place), "R4", text))
    elif ups > downs + 1 and clearer.ends_complete:
        place = up.places[up.rises][downs + 1 - start]
        text = f"The bit {bit} is set {ups} times, but cleared only {downs} times."
        cells.problems.append(Problem(setter.role, int(place), "R4", text))
    elif up.by_one_thread and down.by_one_thread:
        _setter_saw(cells, setter, clearer, up, down, start)
        _clearer_saw(cells, setter, clearer, up, down, start)


@dataclass(frozen=True)
class _Flips:
    """One side's accesses to one bit: what it found and what it did."""

    places: Indices
    found: Mask
    rises: Mask
    falls: Mask
    by_one_thread: bool

    @staticmethod
    def of(side: Side, cell: Cell, bit: int) -> _Flips:
        places = side.on_cell(cell)
        records = side.records
        found = (records["old"][places] & bit) != 0
        left = (records["new"][places] & bit) != 0
        rises, falls = ~found & left, found & ~left
        changing = np.unique(records["thread"][places[rises | falls]])
        if len(changing) == 1:
            # What other threads saw of it cannot be placed between this one's doings.
            same = records["thread"][places] == changing[0]
            places, found, rises, falls = places[same], found[same], rises[same], falls[same]
        return _Flips(places, found, rises, falls, len(changing) <= 1)


def _setter_saw(
    cells: Cells, setter: Side, clearer: Side, up: _Flips, down: _Flips, start: bool
) -> None:
    """Having set it n times: who finds it set is before the n-th clearing, else behind it."""
    times = np.cumsum(up.rises, dtype=np.int64) - up.rises + int(start)
    clearings = down.places[down.falls]
    never = up.found & (times == 0)
    cells.report(setter, up.places[never], "R4", "A notify bit is found set that nobody set.")
    known = (times > 0) & (times <= len(clearings))
    due = np.where(known, times - 1, 0)
    missing = ~up.found & (times > len(clearings))
    if clearer.ends_complete:
        text = "A notify bit is found clear that nobody cleared."
        cells.report(setter, up.places[missing], "R4", text)
    if len(clearings):
        still, gone = up.found & known, ~up.found & known
        cells.before(setter, up.places[still], clearings[due[still]])
        cells.before(clearer, clearings[due[gone]], up.places[gone])


def _clearer_saw(
    cells: Cells, setter: Side, clearer: Side, up: _Flips, down: _Flips, start: bool
) -> None:
    """Having cleared it n times: who finds it set is behind the next setting, else before it."""
    times = np.cumsum(down.falls, dtype=np.int64) - down.falls
    settings = up.places[up.rises]
    # The setting that the init did is nobody's record here.
    due = times - int(start)
    early = ~down.found & (due < 0)
    cells.report(clearer, down.places[early], "R4", "A notify bit is found clear that was set.")
    known = (due >= 0) & (due < len(settings))
    due = np.where(known, due, 0)
    missing = down.found & (times - int(start) >= len(settings))
    if setter.ends_complete:
        text = "A notify bit is found set that nobody set."
        cells.report(clearer, down.places[missing], "R4", text)
    if len(settings):
        there, not_yet = down.found & known, ~down.found & known
        cells.before(setter, settings[due[there]], down.places[there])
        cells.before(clearer, down.places[not_yet], settings[due[not_yet]])
