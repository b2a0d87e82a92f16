"""The verdict on a run: what is said of its traces, why, and how far that reaches.

ACCEPTED, REJECTED, KNOWN and UNDECIDED say whether the traces are a behaviour of the spec;
PROGRESS, STALLED, VIOLATION and INCONCLUSIVE what became of the promises that it made. That the
test bed failed is an exception (`vchan_testbed.errors`), never a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from vchan_testbed.errors import ExitStatus
from vchan_testbed.validate.bounded import Bounded
from vchan_testbed.validate.place import Place

Conformance: TypeAlias = Literal["ACCEPTED", "KNOWN", "UNDECIDED", "REJECTED"]
"""Better ones first."""
ProgressWord: TypeAlias = Literal["PROGRESS", "INCONCLUSIVE", "STALLED", "VIOLATION"]
"""Better ones first."""
Direction: TypeAlias = Literal["left", "right", "both"]
"""`both`: the whole channel, judged by the spec of the library; there the sender's lane is the
server's and the receiver's is the client's."""
Kind: TypeAlias = Literal["", "protocol", "log", "memory-order", "payload", "record"]
"""What a rejection rests on. protocol: no order of the steps is a behaviour of the spec; log: the
traces contradict themselves (a rule of `tracer.checks` is named); memory-order: values of one cell
contradict the order of the steps; payload: bytes lost, doubled or moved; record: an access that
the library does not make."""

CONFORMANCE: tuple[Conformance, ...] = ("ACCEPTED", "KNOWN", "UNDECIDED", "REJECTED")
PROGRESS: tuple[ProgressWord, ...] = ("PROGRESS", "INCONCLUSIVE", "STALLED", "VIOLATION")


@dataclass(frozen=True, slots=True)
class Maximal:
    """A position in both lanes beyond which no behaviour goes on."""

    direction: Direction
    sender_done: int
    """Steps of the sender's lane that were done."""
    receiver_done: int
    sender: Place | None
    """The sender's next record, which cannot follow; None at the end of its lane."""
    receiver: Place | None
    instead: tuple[str, ...]
    """What the spec would have done here, in words."""
    state: Mapping[str, Any]
    """The spec's variables."""


@dataclass(frozen=True, slots=True)
class KnownUse:
    """A known deviation of libxenvchan, and where it was used."""

    id: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class EndCandidate:
    """An end state that fits the traces and what was seen at the end."""

    state: Mapping[str, Any]
    due: tuple[str, ...]
    """Fair actions that could be taken and were not."""
    owed: tuple[str, ...]
    """What was promised and has not happened, in words."""
    says: ProgressWord


@dataclass(frozen=True, slots=True)
class DirectionVerdict:
    """What is said of one direction."""

    direction: Direction
    conformance: Conformance
    progress: ProgressWord
    reason: str = ""
    progress_reason: str = ""
    advice: str = ""
    """As in `Verdict`."""
    switches: tuple[str, ...] = ()
    """Deviations that had to be allowed: a smallest set of them."""
    alternatives: tuple[str, ...] = ()
    """Other sets of as few deviations that would do."""
    spec: str = ""
    """The module through which it was followed."""
    schedule: Mapping[str, Any] | None = None
    """What came of the experiment's schedule, as run.json has it; None: there was none."""
    spurious: int = 0
    """Wake-ups that no recorded event explains, which the event channel allows."""
    known: tuple[KnownUse, ...] = ()
    """Where they were used."""
    unexplained: Place | None = None
    """REJECTED: the record at which no behaviour goes on."""
    fault_of: str | None = None
    due_action: str | None = None
    maximal: tuple[Maximal, ...] = ()
    candidates: tuple[EndCandidate, ...] = ()
    coverage: Mapping[str, int] = field(default_factory=dict)
    overlap: int = 0
    unlogged_steps: int = 0
    stuttering_records: int = 0
    steps: int = 0
    pieces: int = 0
    states: int = 0
    """States that the judge visited."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The verdict that counts as a success."""

    conformance: str = "ACCEPTED"
    progress: str = "PROGRESS"
    known: tuple[str, ...] = ()
    fault_of: str | None = None
    outcome: str | None = None
    no_channel: str | None = None
    """No run is expected, so no verdict is."""

    @staticmethod
    def of(expect: Mapping[str, Any] | None) -> Expectation:
        """From an experiment's `expect`; None or {} is the default one."""
        given = {key: value for key, value in (expect or {}).items() if value is not None}
        given["known"] = tuple(given.get("known", ()))
        return Expectation(**given)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a run."""

    conformance: Conformance
    progress: ProgressWord
    reason: str = ""
    """Why it is not ACCEPTED."""
    kind: Kind = ""
    progress_reason: str = ""
    known: tuple[KnownUse, ...] = ()
    fault_of: str | None = None
    """VIOLATION: "application not calling", "library", "kernel", "event channel" or "peer process";
    STALLED: "peer domain gone", if it is."""
    due_action: str | None = None
    """VIOLATION: the action of the spec that was due."""
    first_unexplained: Place | None = None
    maximal: tuple[Maximal, ...] = ()
    directions: tuple[DirectionVerdict, ...] = ()
    expectation: Expectation = Expectation()
    judge: str = "TLC"
    level: str = "exact"
    """What was judged: every access, or calls and events alone ("calls")."""
    spec: str = ""
    spec_hash: str = ""
    """SHA-256 of the spec's text and its action map."""
    host: Mapping[str, Any] = field(default_factory=dict)
    domain_type: str = "none"
    outcome: str | None = None
    """How the run ended, in the words of `run.json`; None: not known."""
    records: int = 0
    seconds: float = 0.0
    faults_injected: int = 0
    """Records whose effect the test bed changed, as the experiment asked."""
    schedule: Mapping[str, Any] | None = None
    """What came of the experiment's schedule, as run.json has it; None: there was none."""
    spurious: int = 0
    """Wake-ups that no recorded event explains, which the event channel allows."""
    coverage: Mapping[str, int] = field(default_factory=dict)
    overlap: int = 0
    """Calls of one side that saw the other side move its index while they ran."""
    unlogged_steps: int = 0
    """Steps that no record shows and that every explanation needs."""
    stuttering_records: int = 0
    """Records that decide nothing: repeated reads, reads of the own index."""
    switches: tuple[str, ...] = ()
    bounded: Bounded | None = None
    """How long what was due waited; None: nobody asked, or what happened is no behaviour."""
    advice: str = ""
    """What to do next, where that hangs on the reason; empty: what goes with the words."""
    notes: tuple[str, ...] = ()
    """How far the verdict reaches: a cut trace, records left out, no overlap."""

    @property
    def no_xen(self) -> bool:
        """Whether no Xen was involved, or it is not known whether one was."""
        return not self.host.get("xen_version")

    @property
    def unfollowed(self) -> Mapping[str, Any] | None:
        """The step of the schedule that was not taken, and what was done instead."""
        found: Mapping[str, Any] | None = (self.schedule or {}).get("unfollowed")
        return found

    @property
    def expected(self) -> bool:
        """Whether the experiment expects this verdict, and its schedule was followed."""
        want = self.expectation
        return not self.unfollowed and (
            (self.conformance, self.progress) == (want.conformance, want.progress)
            and (not want.known or set(want.known) == {use.id for use in self.known})
            and (want.fault_of is None or want.fault_of == self.fault_of)
            and want.no_channel is None
            and (want.outcome is None or want.outcome == self.outcome)
        )

    @property
    def exit_status(self) -> ExitStatus:
        """0 expected, 1 not, 3 when the question stayed open."""
        if self.expected:
            return ExitStatus.EXPECTED
        if self.unfollowed:
            is_certain = self.unfollowed["is_certain"]
            return ExitStatus.UNEXPECTED if is_certain else ExitStatus.UNDECIDED
        if self.conformance in ("REJECTED", "KNOWN") or self.progress in ("STALLED", "VIOLATION"):
            return ExitStatus.UNEXPECTED
        if self.conformance == "UNDECIDED" or self.progress == "INCONCLUSIVE":
            return ExitStatus.UNDECIDED
        return ExitStatus.UNEXPECTED

    def to_json(self) -> dict[str, Any]:
        """What verdict.json holds."""
        plain = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("known", "expectation", "spec", "spec_hash")
        }
        return {
            **plain,
            "host": {"xen_version": None, **self.host},
            "known": [use.id for use in self.known],
            "known_uses": [asdict(use) for use in self.known],
            "expected": self.expected,
            "expectation": asdict(self.expectation),
            "spec": {"name": self.spec, "sha256": self.spec_hash},
            "no_xen": self.no_xen,
            "exit_status": int(self.exit_status),
        }


def worst_conformance(words: Iterable[Conformance]) -> Conformance:
    """The worst of them; ACCEPTED of none."""
    return max(words, key=CONFORMANCE.index, default="ACCEPTED")


def worst_progress(words: Iterable[ProgressWord]) -> ProgressWord:
    """The worst of them; PROGRESS of none."""
    return max(words, key=PROGRESS.index, default="PROGRESS")
