"""An experiment's faults, held against the spec's tables and made into rules of the tracer's core.

What makes no sense is refused with what would: an action that there is not, that the side never
takes or cannot come to with its operations, a fault that does not fit the action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment_model import Experiment, Fault
from vchan_testbed.guests.fault_steps import ON_DOMAINS, SIDES, Steps, load_steps, value_max
from vchan_testbed.tracer.faults import (
    FAULTS_MAX,
    WAITS_FOR_CELL,
    WAITS_FOR_RELEASE,
    WAITS_FOR_TIME,
    FaultPlan,
    Rule,
)
from vchan_testbed.tracer.layout import ACCESS_KINDS, Call, Cell, FaultKind

HOLD_SECONDS_MAX = 30.0
"""How long a delay waits for the peer at most if the fault does not say."""
ACT_SECONDS_MAX = 300.0
"""How long an endpoint waits for what its host does to a domain."""
CELLS = {
    cell.name.lower(): cell for cell in Cell if cell not in (Cell.LEFT_ORDER, Cell.RIGHT_ORDER)
}
"""Fields of the shared page that a delay can wait for."""
OPTIONS = {
    "delay": ("seconds", "until", "seconds_max"),
    "corrupt": ("value", "xor"),
    **dict.fromkeys(ON_DOMAINS, ("domain",)),
}
"""What a fault may have besides what each of them has."""
COMMON = ("side", "at", "nth", "do", "behind")
OPERATION_CALLS = {
    "write": Call.WRITE,
    "read": Call.READ,
    "send": Call.SEND,
    "recv": Call.RECV,
    "read_to_end": Call.READ,
    "data_ready": Call.DATA_READY,
    "buffer_space": Call.BUFFER_SPACE,
    "is_open": Call.IS_OPEN,
    "wait": Call.WAIT,
}
TELL = 0
"""The kind of a rule that is no fault: the core tells when the step has been taken."""


@dataclass(frozen=True)
class Setting:
    """What an experiment makes of the library: the calls of each end, and how they are made."""

    calls: Mapping[str, Sequence[Call]]
    blocking: bool = True
    level: str = "exact"
    dom0: str | None = None
    """The endpoint that runs in dom0, if one does."""

    @staticmethod
    def of(experiment: Experiment) -> Setting:
        """The setting of an experiment."""
        in_dom0 = [side for side in SIDES if experiment.domain(side).type == "dom0"]
        return Setting(
            calls={side: _calls_of(experiment, side) for side in SIDES},
            blocking=experiment.channel.blocking,
            level=experiment.tracing.level,
            dom0=in_dom0[0] if in_dom0 else None,
        )

    @staticmethod
    def anything() -> Setting:
        """Of a program that may make any call."""
        both = [call for call in Call if call not in (Call.SERVER_INIT, Call.CLIENT_INIT)]
        return Setting({"server": [Call.SERVER_INIT, *both], "client": [Call.CLIENT_INIT, *both]})


@dataclass(frozen=True)
class Refusal:
    """Why a fault is none, at which of its entries, and what would be one."""

    entry: str
    found: str
    expected: str


@dataclass(frozen=True)
class Act:
    """What the host does to a domain while an endpoint is held."""

    do: str
    domain: str


@dataclass(frozen=True)
class Injection:
    """All faults of a run: what each tracer gets, and what is due when one tells something."""

    plans: Mapping[str, FaultPlan] = field(default_factory=dict)
    relays: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    """A step that `side` is to tell of, by its number: the fault that waits for it, and where."""
    acts: Mapping[tuple[str, int], Act] = field(default_factory=dict)
    """By side and number of the fault."""


def refusal(fault: Fault, setting: Setting, steps: Steps | None = None) -> Refusal | None:
    """Why the fault makes no sense in this setting; None if it does."""
    steps = steps or load_steps()
    looks: tuple[Callable[[Fault, Setting, Steps], Refusal | None], ...] = (
        lambda fault, *rest: not_taken("at", fault.side, fault.at, *rest),
        _does_not_apply,
        _wrong_options,
        _wrong_value,
        _wrong_wait,
        _wrong_domain,
    )
    for look in looks:
        if (found := look(fault, setting, steps)) is not None:
            return found
    return None


def too_many(faults: Sequence[Fault]) -> int | None:
    """The first fault for which its endpoint has no room."""
    for side in SIDES:
        own = [number for number, fault in enumerate(faults) if fault.side == side]
        if len(own) > FAULTS_MAX:
            return own[FAULTS_MAX]
    return None


def injection_of(faults: Sequence[Fault], setting: Setting) -> Injection:
    """What comes of the faults. Raises InputError for one that makes no sense, and for too many."""
    for fault in faults:
        if (wrong := refusal(fault, setting)) is not None:
            raise InputError(
                f"The fault {_shown(fault)} makes no sense: {wrong.found}.",
                next_step=wrong.expected,
            )
    if too_many(faults) is not None:
        raise InputError(
            f"{len(faults)} faults are too many.",
            next_step=f"Inject {FAULTS_MAX} at each endpoint at most.",
        )
    return _injection(faults, load_steps())


def _injection(faults: Sequence[Fault], steps: Steps) -> Injection:
    own = {side: [fault for fault in faults if fault.side == side] for side in SIDES}
    told: dict[str, list[Rule]] = {side: [] for side in SIDES}
    relays, acts = {}, {}
    for side, peer in (SIDES, SIDES[::-1]):
        for number, fault in enumerate(own[side]):
            if fault.do in ON_DOMAINS:
                acts[side, number] = Act(fault.do, domain_of(fault))
            if fault.until and fault.until[0] not in CELLS:
                relays[peer, len(told[peer])] = (side, number)
                told[peer].append(_told(fault.until, steps))
    plans = {
        side: FaultPlan(
            rows=steps.rows_for(side) if own[side] or told[side] else (),
            rules=(*(_rule(fault, steps) for fault in own[side]), *told[side]),
            faults=len(own[side]),
        )
        for side in SIDES
    }
    return Injection(plans, relays, acts)


def _rule(fault: Fault, steps: Steps) -> Rule:
    seconds, waits, cell, value = _wait_of(fault)
    if fault.do == "corrupt":
        value = fault.xor if fault.xor is not None else fault.value or 0
    behind, behind_nth = fault.behind or ("", 0)
    return (
        round(seconds * 1e9),
        int(FaultKind[fault.do.upper()]),
        fault.nth,
        behind_nth,
        value,
        steps.numbers[fault.at],
        steps.numbers.get(behind, 0),
        int(fault.xor is not None),
        waits,
        cell,
    )


def _told(until: tuple[str, int], steps: Steps) -> Rule:
    return (0, TELL, until[1], 0, 0, steps.numbers[until[0]], 0, 0, 0, 0)


def _wait_of(fault: Fault) -> tuple[float, int, int, int]:
    """How long at most, for what, and if for a field which one and its value."""
    if fault.do in ON_DOMAINS:
        return ACT_SECONDS_MAX, WAITS_FOR_RELEASE, 0, 0
    if fault.until is None:
        return fault.seconds or 0.0, WAITS_FOR_TIME, 0, 0
    seconds = fault.seconds_max or HOLD_SECONDS_MAX
    if fault.until[0] in CELLS:
        return seconds, WAITS_FOR_CELL, CELLS[fault.until[0]], fault.until[1]
    return seconds, WAITS_FOR_RELEASE, 0, 0


def domain_of(fault: Fault) -> str:
    """The endpoint whose domain a fault is done to: a paused one takes no step to go on at."""
    peer = "client" if fault.side == "server" else "server"
    return fault.domain or (peer if fault.do == "unpause" else fault.side)


# ---- what makes no sense ----


def not_taken(entry: str, side: str, action: str, setting: Setting, steps: Steps) -> Refusal | None:
    """That the side cannot come to the action."""
    own = steps.actions(side)
    possible = steps.taken_in(side, setting.calls[side], blocking=setting.blocking)
    expected = _one_of(name for name in own if name in possible)
    if action not in own:
        known = any(action in steps.actions(other) for other in SIDES)
        found = f"the {side} never takes {action}" if known else f"there is no action {action!r}"
        return Refusal(entry, found, expected)
    if action not in possible:
        calls = f"the {side} does not come to {action} with what it does here"
        return Refusal(entry, calls, expected)
    if setting.level == "calls" and steps.kinds(action) <= ACCESS_KINDS:
        found = f"{action} is an access, and accesses are not caught at the level calls"
        return Refusal(entry, found, "Trace at the level exact.")
    return None


def _does_not_apply(fault: Fault, _: Setting, steps: Steps) -> Refusal | None:
    fitting = steps.applicable(fault.at, fault.side)
    if fault.do in fitting:
        return None
    return Refusal("do", f"{fault.do} does not apply to {fault.at}", _one_of(fitting))


def _wrong_options(fault: Fault, *_: object) -> Refusal | None:
    allowed = OPTIONS.get(fault.do, ())
    for name, value in asdict(fault).items():
        if value is not None and name not in (*COMMON, *allowed):
            expected = _one_of((*COMMON, *allowed))
            return Refusal(name, f"the fault {fault.do} has no entry {name!r}", expected)
    return None


def _wrong_value(fault: Fault, _: Setting, steps: Steps) -> Refusal | None:
    if fault.do != "corrupt":
        return None
    if (fault.value is None) == (fault.xor is None):
        return Refusal("do", "a corrupt carries a value or a mask", "Give one of: value, xor.")
    cell = steps.cell(fault.at, fault.side)
    assert cell is not None
    most = value_max(cell)
    for name, number in (("value", fault.value), ("xor", fault.xor)):
        if number is not None and not int(name == "xor") <= number <= most:
            found = f"{name} is {number}, and {fault.at} is at {cell.name.lower()}"
            return Refusal(name, found, f"Expected {int(name == 'xor')} to {most}.")
    return None


def _wrong_wait(fault: Fault, setting: Setting, steps: Steps) -> Refusal | None:
    if fault.behind:
        wrong = not_taken("behind", fault.side, fault.behind[0], setting, steps)
        if wrong:
            return wrong
    if fault.do != "delay":
        return None
    if (fault.seconds is None) == (fault.until is None):
        return Refusal("do", "a delay lasts for a time or until something", _WAYS)
    if fault.until is None:
        text = "seconds_max belongs to `until`"
        return Refusal("seconds_max", text, "Leave it out.") if fault.seconds_max else None
    name, number = fault.until
    if name in CELLS:
        most = value_max(CELLS[name])
        text = f"{name} is to become {number}"
        return None if number <= most else Refusal("until", text, f"Expected 0 to {most}.")
    if number < 1:
        return Refusal("until", f"{name} is counted from 1", "Expected 1 or more.")
    peer = "client" if fault.side == "server" else "server"
    wrong = not_taken("until", peer, name, setting, steps)
    if wrong is None:
        return None
    return Refusal("until", wrong.found, f"{wrong.expected} Or a field: {', '.join(CELLS)}.")


_WAYS = "Give one of: seconds, until."


def _wrong_domain(fault: Fault, setting: Setting, _: Steps) -> Refusal | None:
    if fault.do not in ON_DOMAINS:
        return None
    domain = domain_of(fault)
    if domain == setting.dom0:
        found = f"the {domain} runs in dom0, and {fault.do} of that ends everything"
        return Refusal("do", found, "Let that endpoint run in a domain of its own.")
    if fault.do == "unpause" and domain == fault.side:
        found = "a domain that is paused takes no step at which it could be unpaused"
        return Refusal("domain", found, "Unpause it at a step of the other side.")
    return None


def _one_of(names: Iterable[str]) -> str:
    return f"Expected one of: {', '.join(names)}."


def _calls_of(experiment: Experiment, side: str) -> tuple[Call, ...]:
    return tuple(dict.fromkeys(_made(experiment, side)))


def _made(experiment: Experiment, side: str) -> Iterator[Call]:
    """The library's calls that an endpoint makes."""
    yield Call.SERVER_INIT if side == "server" else Call.CLIENT_INIT
    for operation in experiment.operations(side):
        if operation.do in OPERATION_CALLS:
            yield OPERATION_CALLS[operation.do]
    if not experiment.channel.blocking:
        yield Call.WAIT
    yield Call.CLOSE


def _shown(fault: Fault) -> str:
    given = {name: value for name, value in asdict(fault).items() if value is not None}
    return ", ".join(f"{name}: {value}" for name, value in given.items())
