"""A channel followed through the specs, and what comes of it: conformance and progress.

The whole channel is followed through Libxenvchan: that gives the verdict. Each of its directions is
followed through Vchan as well, as far as that can express it, and has to be safe there too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from vchan_testbed.progress import Progress
from vchan_testbed.tracer.header import Role
from vchan_testbed.validate import verdict as words_of_verdict
from vchan_testbed.validate.evidence import ROLES
from vchan_testbed.validate.lanes import EndState, FollowResult, Lanes, SpecParams, Start
from vchan_testbed.validate.liveness import Question, progress_of
from vchan_testbed.validate.lost_tail import judged_up_to, lost_tails
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.prepare import Case, Prepared
from vchan_testbed.validate.replay import Follow, Replay, Replayed
from vchan_testbed.validate.states import states_of
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.follow import follow
from vchan_testbed.validate.unfollowed import REPEAT
from vchan_testbed.validate.verdict import DirectionVerdict, KnownUse, Verdict
from vchan_testbed.validate.window import learnt
from vchan_testbed.validate.wording import Words

MAXIMAL_SHOWN = 20
LOOK = (
    "see what it said last in the console folder of the run directory; where its death is the "
    "experiment, name the outcome in `expect:`"
)
SAFETY = "Of each direction it is asked whether it is safe; progress is the whole channel's."
LOST = "The last records of an end are lost: in which state it ended is not known."


def followed(
    case: Case,
    judge: Follow | None,
    progress: Progress,
    tlc: Callable[[Prepared], Follow] | None = None,
) -> Verdict:
    """The verdict on the channel and its directions.

    `judge` follows a piece of a direction, None is TLC; the whole channel is TLC's in any case.
    `tlc` says how TLC is asked about a channel or direction, None is one run of it for each piece.
    Raises TestbedError.
    """
    tlc = tlc or tlc_judge
    parts = parts_of(case)
    steps = sum(one.steps for one in parts)
    with progress.step(f"Follow {steps} steps through the spec {case.tables.module}"):
        shared = [_Shared(progress, one.lanes.direction) for one in parts]
        with ThreadPoolExecutor(2) as pool:
            running = [
                pool.submit(
                    _one_part,
                    one,
                    case,
                    judge if judge and one is not case.channel else tlc(one),
                    shown,
                )
                for one, shown in zip(parts, shared, strict=True)
            ]
            found = [one.result() for one in running]
    if case.channel is None:
        return _combined(found)
    return _with_directions(found[0], found[1:], case)


def parts_of(case: Case) -> list[Prepared]:
    """What is followed: the channel first, and each direction that Vchan can express."""
    if case.channel is None:
        return list(case.directions)
    if case.channel.lanes.searched:
        return [case.channel]
    return [case.channel, *(one for one in case.directions if not one.lanes.needs)]


def _with_directions(
    channel: DirectionVerdict, directions: Sequence[DirectionVerdict], case: Case
) -> Verdict:
    """The channel's verdict; of its directions counts whether each is safe by the protocol.

    They cannot be if the channel's own verdict rests on a wake-up out of nowhere: Vchan has none
    that no record shows.
    """
    if channel.spurious:
        directions = []
    safe = [replace(one, progress="INCONCLUSIVE", progress_reason=SAFETY) for one in directions]
    whole = _combined([channel])
    worse = next((one for one in safe if _worse(one, channel)), None)
    notes = tuple(
        f"The {one.lanes.direction} direction was not judged by {one.actions.module} as well: "
        f"{'; '.join(one.lanes.needs)}."
        for one in case.directions
        if one.lanes.needs and case.level == "exact"
    )
    if channel.spurious:
        times = "once" if channel.spurious == 1 else f"{channel.spurious} times"
        notes = (f"A wake-up that no recorded event explains came {times}, which is legal.", *notes)
    whole = replace(whole, directions=(channel, *safe), notes=notes, spurious=channel.spurious)
    if worse is None:
        return whole
    found = _combined([worse])
    return replace(
        found,
        reason=f"{worse.direction}, by {worse.spec}: {worse.reason}",
        directions=whole.directions,
        coverage=whole.coverage,
        overlap=whole.overlap,
        notes=notes,
    )


def _worse(direction: DirectionVerdict, channel: DirectionVerdict) -> bool:
    rank = words_of_verdict.CONFORMANCE.index
    return rank(direction.conformance) > rank(channel.conformance)


def tlc_judge(one: Prepared) -> Follow:
    """TLC, which follows pieces of a channel or direction."""
    actions = one.actions

    def judged(
        lanes: Lanes,
        params: SpecParams,
        starts: Sequence[Start] | None,
        progress: Progress,
        *,
        explain: bool = True,
    ) -> FollowResult:
        return follow(lanes, params, starts, progress=progress, actions=actions, explain=explain)

    return judged


def _one_part(one: Prepared, case: Case, judge: Follow, progress: Progress) -> DirectionVerdict:
    actions = one.actions
    words = Words(one.lanes, case.traces, one.order, states_of(actions))
    replayed = _replayed(one, judge, progress)
    base = _counted(one, replayed, actions)
    if replayed.undecided:
        return _undecided(base, replayed)
    lost = lost_tails(case.traces, case.endings, case.evidence)
    if not replayed.accepted:
        at = judged_up_to(replayed.frontier, one.lanes, lost, actions)
        if at is not None:
            return _up_to(base, words.unexplained(at), lost)
        return _rejected(base, replayed, words)
    base = _accepted(base, replayed, words)
    if lost:
        return replace(base, progress_reason=LOST, advice=REPEAT)
    return _with_progress(base, one, case, replayed)


def _replayed(one: Prepared, judge: Follow, progress: Progress) -> Replayed:
    """Followed from the spec's own initial states, or from all in which a window can begin."""
    actions = one.actions
    replay = Replay(
        one.lanes,
        one.cuts,
        judge,
        progress,
        actions.switches,
        may_be_spurious="spurious" in actions.actions,
    )
    if one.window is None:
        return replay.run()
    replay.learn = lambda lanes, starts: learnt(lanes, starts, actions)
    found = replace(replay, starts=one.window.starts).run()
    if found.accepted or found.undecided:
        return found
    wider = replace(replay, starts=one.window.rare).run()
    return wider if wider.accepted or wider.undecided else found


def _undecided(base: DirectionVerdict, replayed: Replayed) -> DirectionVerdict:
    return replace(
        base,
        conformance="UNDECIDED",
        reason=f"the search stopped at its bound: {replayed.undecided}",
        progress_reason="It was not followed to its end.",
        advice="make the run shorter, or judge it on a machine that has more of what ran out",
    )


def _up_to(base: DirectionVerdict, place: Place, lost: Sequence[Role]) -> DirectionVerdict:
    reason = (
        f"judged up to record {place.record - 1} of the {place.endpoint}: its next one"
        f" ({place.what}) may follow from records of the {' and '.join(lost)} that are lost"
    )
    return replace(base, reason=reason, progress_reason=LOST, advice=REPEAT)


def _rejected(base: DirectionVerdict, replayed: Replayed, words: Words) -> DirectionVerdict:
    place = words.unexplained(replayed.frontier[0])
    return replace(
        base,
        conformance="REJECTED",
        reason=place.reason,
        unexplained=place,
        maximal=tuple(words.maximal(at) for at in replayed.frontier[:MAXIMAL_SHOWN]),
    )


def _accepted(base: DirectionVerdict, replayed: Replayed, words: Words) -> DirectionVerdict:
    known = tuple(
        KnownUse(switch, (words.unexplained(use.position),))
        for use in replayed.uses
        for switch in use.switches
    )
    switches = tuple(dict.fromkeys(use.id for use in known))
    if not known:
        return base
    reason = f"explained only with the known deviation {', '.join(switches)} of libxenvchan"
    others = dict.fromkeys(", ".join(one) for use in replayed.uses for one in use.alternatives)
    return replace(
        base,
        conformance="KNOWN",
        reason=reason,
        switches=switches,
        alternatives=tuple(others),
        known=known,
    )


def _with_progress(
    base: DirectionVerdict, one: Prepared, case: Case, replayed: Replayed
) -> DirectionVerdict:
    question = Question(
        states=states_of(one.actions),
        role=one.lanes.role,
        evidence=case.evidence,
        owner_of=one.actions.owner_of,
    )
    judged = progress_of(replayed.ends, question)
    if judged.word == "PROGRESS" and (dead := _dead(case)):
        # Nothing is owed by the dead: a library that crashes at its first call would pass.
        reason = f"The {dead} died before it was through: what it had still to do was not done."
        return replace(base, progress_reason=reason, advice=LOOK, candidates=judged.candidates)
    return replace(
        base,
        progress=judged.word,
        progress_reason=judged.reason,
        fault_of=judged.fault_of,
        due_action=judged.due_action,
        candidates=judged.candidates,
    )


def _dead(case: Case) -> str:
    """The ends that died by themselves or with their domains; those that were killed when the run
    was over are none of them."""
    return " and the ".join(role for role in ROLES if case.evidence.ended(role) in ("died", "lost"))


def _counted(one: Prepared, replayed: Replayed, actions: ActionMap) -> DirectionVerdict:
    shown = {name for name, action in actions.actions.items() if not action.hidden}
    unlogged = sum(count for name, count in replayed.coverage.items() if name not in shown)
    return DirectionVerdict(
        direction=one.lanes.direction,
        spec=actions.module,
        spurious=_spurious(replayed.ends),
        conformance="ACCEPTED",
        progress="INCONCLUSIVE",
        progress_reason="No end state is known of what is no behaviour.",
        coverage=replayed.coverage,
        overlap=replayed.overlap,
        unlogged_steps=unlogged,
        stuttering_records=one.lanes.sender.stutters + one.lanes.receiver.stutters,
        steps=one.steps,
        pieces=replayed.pieces,
        states=replayed.states,
    )


def _spurious(ends: Sequence[EndState]) -> int:
    """The fewest wake-ups out of nowhere with which an end was reached."""
    used = (cast(int, one.state.as_dict().get("awakened", 0)) for one in ends)
    return min(used, default=0)


def _combined(found: Sequence[DirectionVerdict]) -> Verdict:
    """Both directions: the worst wins."""
    conformance = words_of_verdict.worst_conformance(one.conformance for one in found)
    progress = words_of_verdict.worst_progress(one.progress for one in found)
    worst = next(one for one in found if one.conformance == conformance)
    stuck = next(one for one in found if one.progress == progress)
    coverage: Counter[str] = Counter()
    for one in found:
        coverage.update(one.coverage)
    return Verdict(
        conformance=conformance,
        progress=progress,
        reason=_reason(worst),
        kind="protocol" if conformance == "REJECTED" else "",
        progress_reason=_progress_reason(found, stuck),
        known=_by_id([use for one in found for use in one.known]),
        fault_of=stuck.fault_of,
        due_action=stuck.due_action,
        advice=_advice(worst, stuck),
        first_unexplained=next((one.unexplained for one in found if one.unexplained), None),
        maximal=tuple(at for one in found for at in one.maximal),
        directions=tuple(found),
        coverage=dict(coverage),
        overlap=sum(one.overlap for one in found),
        unlogged_steps=sum(one.unlogged_steps for one in found),
        stuttering_records=sum(one.stuttering_records for one in found),
        switches=tuple(dict.fromkeys(switch for one in found for switch in one.switches)),
    )


def _reason(worst: DirectionVerdict) -> str:
    if not worst.reason or worst.direction == "both":
        return worst.reason
    return f"{worst.direction}: {worst.reason}"


def _progress_reason(found: Sequence[DirectionVerdict], stuck: DirectionVerdict) -> str:
    """With the directions that it holds for."""
    reason = stuck.progress_reason
    same = [one.direction for one in found if one.progress_reason == reason]
    if not reason or same == ["both"]:
        return reason
    return f"{' and '.join(same)}: {reason}"


def _advice(worst: DirectionVerdict, stuck: DirectionVerdict) -> str:
    """The one of what the whole verdict rests on."""
    bad = worst.conformance in ("REJECTED", "KNOWN") or stuck.progress in ("STALLED", "VIOLATION")
    return "" if bad else worst.advice or stuck.advice


def _by_id(uses: Sequence[KnownUse]) -> tuple[KnownUse, ...]:
    places: dict[str, tuple[Place, ...]] = {}
    for use in uses:
        places[use.id] = (*places.get(use.id, ()), *use.places)
    return tuple(KnownUse(name, found) for name, found in places.items())


class _Shared:
    """One direction's share of a progress line."""

    _lock = threading.Lock()

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Shown as a note: two directions may be under way."""
        self.note(title)
        yield

    def note(self, text: str) -> None:
        """One line, by one direction at a time."""
        with self._lock:
            self._progress.note(f"{self._name}: {text}")

    def say(self, text: str) -> None:
        """One line that stays."""
        with self._lock:
            self._progress.say(f"{self._name}: {text}")
