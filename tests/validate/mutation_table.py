"""The table of mutations: for every kind of record a change made by hand, and what is due for it.

A changed record need not be rejected where it stands. An older value can have been read as well,
and a read that decides nothing can be left out: those are legal, with the reason. A test-and-clear
that is flipped is contradicted by what comes after it. What is due is said for each one, with the
record that has to be named.
"""

from __future__ import annotations

from mutations import (
    MINUS_ONE,
    Mutation,
    Pick,
    cut_here,
    double,
    drop,
    legal,
    lose,
    puts,
    reads,
    rejected_at,
    sets,
    swap,
    undecided,
)

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Flag, Kind

S: Role = "server"
C: Role = "client"

# A load of the peer's index, of the own one, of a live byte, of a notify byte, of an order.
PROD_SEEN = Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD, 5)
PROD_SEEN_AGAIN = Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD, 6)
DEAD_LOAD = Pick(C, Kind.LOAD, Call.WRITE, Cell.LEFT_CONS)
TAKE = Pick(S, Kind.RMW_PLAIN, Call.READ, Cell.LEFT_CONS)
LOADS = [
    Mutation(PROD_SEEN, reads(0), "older than the event that woke the thread"),
    Mutation(PROD_SEEN_AGAIN, reads(0), "older than what it had read before"),
    Mutation(PROD_SEEN, reads(2000), "a value that was never written", PROD_SEEN_AGAIN),
    Mutation(PROD_SEEN, reads(1500), "newer than the next read of it", PROD_SEEN_AGAIN),
    legal(
        Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD, 3),
        reads(100),
        "older, and the first write's bytes are enough for this read",
        "slow reader",
    ),
    rejected_at(
        Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD, 8),
        reads(1024),
        Pick(S, Kind.RMW_PLAIN, Call.READ, Cell.LEFT_CONS, 2),
        "older and possible, but then there was nothing to take",
    ),
    rejected_at(
        Pick(C, Kind.LOAD, Call.WRITE, Cell.LEFT_CONS, 5),
        reads(1024),
        Pick(C, Kind.PENDING_EXIT, Call.WRITE, None, 2),
        "newer and possible, but then there was room and no reason to wait",
    ),
    rejected_at(
        DEAD_LOAD,
        reads(1024),
        Pick(C, Kind.LOAD, Call.WRITE, Cell.LEFT_CONS, 2),
        "a read that decides nothing, newer than the one that does",
    ),
    Mutation(
        Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_CONS, 2), reads(5), "an own index never stored"
    ),
    rejected_at(
        Pick(C, Kind.LOAD, Call.WRITE, Cell.SRV_LIVE, 2),
        reads(0),
        Pick(C, Kind.LOAD, Call.WRITE, Cell.SRV_LIVE, 3),
        "closed, and open again afterwards",
    ),
    rejected_at(
        Pick(S, Kind.LOAD, Call.READ, Cell.CLI_LIVE, 3),
        reads(1),
        Pick(S, Kind.CALL_EXIT, Call.READ, None, 3),
        "still open, and yet the end is reported",
    ),
    rejected_at(
        Pick(S, Kind.LOAD, Call.IS_OPEN, Cell.CLI_LIVE),
        reads(0),
        Pick(S, Kind.CALL_EXIT, Call.IS_OPEN),
        "closed, and is_open says open",
    ),
    Mutation(
        Pick(S, Kind.LOAD, Call.READ, Cell.SRV_NOTIFY), reads(1), "a bit not yet set, which was"
    ),
    Mutation(Pick(C, Kind.LOAD, Call.CLIENT_INIT, Cell.LEFT_ORDER), reads(11), "another order"),
    rejected_at(PROD_SEEN, drop, Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, 3),
                "arms without having looked", -1),
    rejected_at(PROD_SEEN_AGAIN, drop, TAKE, "takes without having looked again", -1),
    legal(PROD_SEEN_AGAIN, double, "the same value read twice decides nothing"),
    legal(DEAD_LOAD, drop, "a dead load that another compiler leaves out"),
    rejected_at(Pick(C, Kind.LOAD, Call.WRITE, Cell.SRV_LIVE), drop,
                Pick(C, Kind.LOAD, Call.WRITE, Cell.LEFT_CONS, 2),
                "writes without having asked whether the peer is there", -1),
    rejected_at(Pick(S, Kind.LOAD, Call.READ, Cell.CLI_LIVE), drop,
                Pick(S, Kind.PENDING_EXIT, Call.READ),
                "waits without having asked whether the peer is there", -1),
    rejected_at(PROD_SEEN_AGAIN, lose, Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_CONS, 7),
                "its number is missing", -1),
]  # fmt: skip

PUT = Pick(C, Kind.STORE, Call.WRITE, Cell.LEFT_PROD)
WRITTEN = Pick(C, Kind.CALL_EXIT, Call.WRITE)
STORES = [
    rejected_at(PUT, sets(new=1000), WRITTEN, "moves the index by less than it says"),
    rejected_at(
        Pick(C, Kind.STORE, Call.WRITE, Cell.LEFT_PROD, 2),
        sets(old=1000),
        WRITTEN,
        "finds another value than it left",
    ),
    rejected_at(PUT, drop, WRITTEN, "the index was not moved", -1),
    rejected_at(PUT, double, WRITTEN, "the index was moved twice", 1),
    Mutation(PUT, swap, "tests the bit before it moves the index"),
    rejected_at(
        Pick(C, Kind.STORE, Call.CLIENT_INIT, Cell.SRV_NOTIFY),
        sets(new=0),
        Pick(S, Kind.CMPXCHG_OK, Call.WRITE, Cell.SRV_NOTIFY),
        "connects without asking to be told, and is told",
    ),
    rejected_at(
        Pick(C, Kind.STORE, Call.CLIENT_INIT, Cell.CLI_LIVE),
        sets(new=0),
        Pick(C, Kind.STORE, Call.CLOSE, Cell.CLI_LIVE),
        "does not say that it lives, and stops living",
    ),
    Mutation(Pick(C, Kind.STORE, Call.CLOSE, Cell.CLI_LIVE), sets(new=1), "closes and lives on"),
    rejected_at(
        Pick(C, Kind.STORE, Call.CLOSE, Cell.CLI_LIVE),
        drop,
        Pick(C, Kind.UNMAP_PAGE),
        "gives the page back before it has closed",
        -1,
    ),
    rejected_at(
        Pick(S, Kind.STORE, Call.SERVER_INIT, Cell.CLI_NOTIFY),
        sets(new=0),
        Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY),
        "a bit is found set that nobody set",
    ),
    Mutation(
        Pick(S, Kind.STORE, Call.SERVER_INIT, Cell.SRV_LIVE), sets(new=0), "a server that is dead"
    ),
    rejected_at(
        Pick(S, Kind.STORE, Call.SERVER_INIT, Cell.LEFT_ORDER),
        sets(new=12),
        Pick(C, Kind.LOAD, Call.CLIENT_INIT, Cell.LEFT_ORDER),
        "an order that the client reads as another",
    ),
]

ARM_2, ARM_3 = (Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, nth) for nth in (2, 3))
TEST = Pick(C, Kind.RMW_LOCKED, Call.WRITE, Cell.CLI_NOTIFY)
DATA_EVENT = Pick(C, Kind.NOTIFY, Call.WRITE)
MODIFIES = [
    rejected_at(ARM_2, sets(old=0), Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, 5),
                "found clear, and nobody had cleared it"),
    rejected_at(ARM_3, sets(old=1), Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, 4),
                "found set, though it had been cleared"),
    rejected_at(ARM_3, sets(new=0), Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, 4),
                "sets nothing, and the bit is set"),
    rejected_at(ARM_2, drop, Pick(S, Kind.LOAD, Call.READ, Cell.CLI_LIVE, 2),
                "waits without having asked to be told", -1),
    rejected_at(ARM_3, drop, Pick(S, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY, 4),
                "the bit is set again and nobody set it", -1),
    legal(ARM_2, swap, "a read of the own index may come before or after"),
    rejected_at(TEST, sets(old=0), DATA_EVENT, "flipped: then there was no reason for an event"),
    rejected_at(TEST, drop, DATA_EVENT, "an event for which no bit was cleared", -1),
    rejected_at(TEST, sets(new=1), DATA_EVENT, "the bit is tested and not cleared"),
    Mutation(Pick(C, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY), sets(old=2),
             "flipped: then an event was due"),
    rejected_at(TAKE, sets(new=1000), Pick(S, Kind.CALL_EXIT, Call.READ),
                "takes less than it says"),
    rejected_at(TAKE, sets(old=7), Pick(S, Kind.CALL_EXIT, Call.READ),
                "finds another value than it left"),
    rejected_at(Pick(S, Kind.RMW_PLAIN, Call.WRITE, Cell.RIGHT_PROD), drop,
                Pick(S, Kind.CALL_EXIT, Call.WRITE), "the index was not moved", -1),
    rejected_at(Pick(S, Kind.CMPXCHG_OK, Call.READ, Cell.SRV_NOTIFY), sets(old=1),
                Pick(S, Kind.NOTIFY, Call.READ), "flipped: then there was no reason for an event"),
    Mutation(Pick(S, Kind.CMPXCHG_OK, Call.READ, Cell.SRV_NOTIFY, 2), sets(old=3),
             "flipped: then an event was due"),
    rejected_at(Pick(S, Kind.CMPXCHG_OK, Call.WRITE, Cell.SRV_NOTIFY), drop,
                Pick(S, Kind.NOTIFY, Call.WRITE), "an event for which no bit was cleared", -1),
    Mutation(Pick(S, Kind.CMPXCHG_FAIL), sets(new=0), "fails and changes the cell",
             base="contended"),
    legal(Pick(S, Kind.CMPXCHG_FAIL), drop, "a failed attempt decides nothing: the next one does",
          "contended"),
]  # fmt: skip

FILLS = [
    Mutation(Pick(S, Kind.BULK, Call.SERVER_INIT, Cell.LEFT_PROD), sets(new=4), "no empty ring"),
    rejected_at(
        Pick(S, Kind.BULK, Call.SERVER_INIT, Cell.LEFT_PROD),
        drop,
        Pick(S, Kind.CALL_EXIT, Call.SERVER_INIT),
        "an index that was never cleared",
        -1,
    ),
    rejected_at(
        Pick(S, Kind.BULK, Call.SERVER_INIT, Cell.SRV_NOTIFY),
        sets(new=1),
        Pick(S, Kind.CMPXCHG_OK, Call.WRITE, Cell.SRV_NOTIFY),
        "set before the client came, so it came too early",
    ),
]

ENTER_WRITE, ENTER_READ = Pick(C, Kind.CALL_ENTER, Call.WRITE), Pick(S, Kind.CALL_ENTER, Call.READ)
EXIT_READ = Pick(S, Kind.CALL_EXIT, Call.READ)
CALLS = [
    rejected_at(ENTER_WRITE, sets(old=1400), WRITTEN, "returns more than it was given"),
    rejected_at(
        ENTER_WRITE,
        sets(old=1600),
        Pick(C, Kind.STORE, Call.WRITE, Cell.LEFT_PROD, 2),
        "puts less than it was given, with room for it",
    ),
    rejected_at(ENTER_READ, sets(old=1024), ARM_3, "arms though there is enough"),
    legal(ENTER_READ, sets(old=4000), "who asks for more than there is gets what there is"),
    Mutation(ENTER_READ, drop, "records of a call that was not entered"),
    Mutation(WRITTEN, sets(new=1400), "says that it wrote less than it put"),
    Mutation(WRITTEN, sets(new=MINUS_ONE), "fails after everything was put"),
    Mutation(EXIT_READ, sets(new=1000), "says that it read less than it took"),
    rejected_at(
        EXIT_READ,
        sets(new=MINUS_ONE),
        Pick(S, Kind.PAYLOAD),
        "fails, and the application has its bytes",
    ),
    Mutation(Pick(S, Kind.CALL_EXIT, Call.READ, None, 3), sets(new=0), "the end told as nothing"),
    Mutation(EXIT_READ, drop, "a call that was not left"),
    Mutation(Pick(S, Kind.CALL_EXIT, Call.IS_OPEN), sets(new=0), "not what it has read"),
]

CLEARED = Pick(C, Kind.RMW_LOCKED, Call.WRITE, Cell.CLI_NOTIFY)
EVENTS = [
    rejected_at(DATA_EVENT, drop, CLEARED, "a bit was cleared and no event raised"),
    Mutation(DATA_EVENT, double, "an event for which no bit was cleared", "here", 1),
    rejected_at(
        Pick(S, Kind.NOTIFY, Call.READ),
        drop,
        Pick(S, Kind.CMPXCHG_OK, Call.READ, Cell.SRV_NOTIFY),
        "a bit was cleared and no event raised",
    ),
    undecided(DATA_EVENT, sets(new=MINUS_ONE), "a notify that fails"),
    Mutation(DATA_EVENT, sets(old=99), "another port"),
    rejected_at(
        Pick(C, Kind.NOTIFY, Call.CLOSE),
        drop,
        Pick(C, Kind.STORE, Call.CLOSE, Cell.CLI_LIVE),
        "closes and tells nobody",
    ),
    rejected_at(
        Pick(C, Kind.NOTIFY, Call.CLIENT_INIT),
        drop,
        Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD, 3),
        "then the server was woken by the data, and would have seen it",
    ),
    Mutation(Pick(S, Kind.PENDING_ENTER, Call.READ), drop, "woken without having waited"),
    Mutation(Pick(S, Kind.PENDING_EXIT, Call.READ), drop, "a wait that does not end"),
    Mutation(Pick(S, Kind.PENDING_EXIT, Call.READ), sets(new=99), "woken by another port"),
    rejected_at(
        Pick(S, Kind.PENDING_EXIT, Call.READ),
        sets(new=MINUS_ONE, old=4),
        Pick(S, Kind.UNMASK, Call.READ),
        "a wait that failed, and an unmask all the same",
    ),
    Mutation(Pick(S, Kind.PENDING_EXIT, Call.READ), double, "woken twice by one wait", "here", 1),
    rejected_at(
        Pick(S, Kind.UNMASK, Call.READ),
        drop,
        Pick(S, Kind.PENDING_EXIT, Call.READ),
        "an event was taken and its port left masked",
    ),
    Mutation(Pick(S, Kind.UNMASK, Call.READ), sets(old=99), "another port"),
    undecided(Pick(S, Kind.UNMASK, Call.READ), sets(new=MINUS_ONE), "an unmask that fails"),
]

ATTACHED = {role: Pick(role, Kind.ATTACH) for role in (S, C)}
FRAMES = [
    rejected_at(Pick(S, Kind.BIND_UNBOUND), sets(new=99), ATTACHED[S], "not the port it goes by"),
    Mutation(Pick(C, Kind.BIND_INTERDOMAIN), sets(old=99), "not the port that was offered"),
    rejected_at(
        Pick(C, Kind.BIND_INTERDOMAIN),
        drop,
        Pick(C, Kind.CALL_EXIT, Call.CLIENT_INIT),
        "no port was bound",
        -1,
    ),
    Mutation(Pick(S, Kind.UNMASK, Call.SERVER_INIT), puts(Kind.UNBIND), "an init that went on",
             "here", 1, kind=Kind.UNBIND),
    Mutation(Pick(C, Kind.MAP_PAGE), sets(old=99), "not the page that was offered"),
    rejected_at(Pick(S, Kind.SHARE_PAGE), sets(old=99), Pick(C, Kind.MAP_PAGE),
                "not the page that the client maps"),
    rejected_at(Pick(S, Kind.SHARE_PAGE), drop, Pick(S, Kind.CALL_EXIT, Call.SERVER_INIT),
                "no page was shared", -1),
    Mutation(Pick(S, Kind.SHARE_RING), sets(new=2), "more pages than the ring has"),
    Mutation(Pick(C, Kind.MAP_RING), sets(new=2), "more pages than the ring has"),
    Mutation(ATTACHED[S], sets(old=10 | 10 << 16), "other orders than the channel's"),
    Mutation(ATTACHED[S], sets(operand=1), "a server that is a client"),
    Mutation(Pick(S, Kind.UNSHARE_PAGE), sets(old=1), "given back while it lives"),
    rejected_at(Pick(S, Kind.UNSHARE_PAGE), drop, Pick(S, Kind.CALL_EXIT, Call.CLOSE),
                "the page was not given back", -1),
    Mutation(Pick(C, Kind.UNMAP_PAGE), sets(old=1), "given back while it lives"),
    rejected_at(Pick(C, Kind.UNMAP_PAGE), drop, Pick(C, Kind.CALL_EXIT, Call.CLOSE),
                "the page was not given back", -1),
    rejected_at(Pick(S, Kind.EVTCHN_CLOSE), drop, Pick(S, Kind.CALL_EXIT, Call.CLOSE),
                "the event channel was not closed", -1),
]  # fmt: skip

LAST_EVENT = Pick(C, Kind.NOTIFY, Call.WRITE, None, 2)
SECOND = Pick(S, Kind.PAYLOAD, nth=2)
TRACERS_OWN = [
    Mutation(SECOND, sets(old=1000), "24 bytes came twice"),
    Mutation(SECOND, sets(old=1030), "6 bytes were lost"),
    Mutation(SECOND, sets(operand=1), "bytes that nobody wrote"),
    Mutation(SECOND, sets(new=400), "not as many as were read"),
    rejected_at(Pick(S, Kind.PAYLOAD), drop, SECOND, "then the next bytes are not the first", -1),
    legal(SECOND, drop, "nobody has to look at what was read last"),
    rejected_at(Pick(S, Kind.COPY, Call.READ), sets(new=1000), TAKE,
                "copies less than the index moves"),
    Mutation(Pick(S, Kind.COPY, Call.READ, None, 2), sets(operand=4), "copies from another place"),
    rejected_at(Pick(S, Kind.COPY, Call.READ), sets(op=0), TAKE,
                "copies into the ring that it reads"),
    rejected_at(Pick(S, Kind.COPY, Call.READ), drop, TAKE, "moves the index, copies nothing", -1),
    Mutation(Pick(S, Kind.COPY, Call.READ), puts(Kind.DIGEST), "the digest of no copy", "here", 1,
             kind=Kind.DIGEST),
    Mutation(Pick(S, Kind.PAGE), sets(old=0), "an index that it had moved"),
    Mutation(Pick(C, Kind.PAGE), sets(old=0), "an index that it had moved"),
    legal(Pick(C, Kind.PAGE), drop, "the tracer's own look: nothing hangs on it"),
    legal(Pick(S, Kind.DETACH), drop, "the tracer's own mark: nothing hangs on it"),
    legal(Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD), sets(t0=5, t1=6),
          "another time: clocks are no evidence"),
    legal(Pick(S, Kind.LOAD, Call.READ, Cell.LEFT_PROD), sets(site=1), "another instruction"),
    legal(TAKE, sets(flags=int(Flag.RETRIED)), "the tracer had to try again"),
    rejected_at(Pick(C, Kind.FAULT), drop, LAST_EVENT, "an effect dropped, and no fault says so",
                -1, "stuck"),
    Mutation(Pick(C, Kind.FAULT), sets(old=3), "which fault dropped the event is all the same",
             None, 0, "ACCEPTED", "VIOLATION", "event channel", "stuck"),
    rejected_at(LAST_EVENT, sets(flags=0), Pick(C, Kind.FAULT), "a fault that hit nothing", 0,
                "stuck"),
    rejected_at(LAST_EVENT, drop, Pick(C, Kind.CMPXCHG_OK, Call.WRITE, Cell.CLI_NOTIFY, 2),
                "then it was never raised", 0, "stuck"),
    Mutation(Pick(S, Kind.STORE, Call.CLOSE, Cell.SRV_LIVE), cut_here,
             "a good beginning, and how it went on is open", None, 0, "ACCEPTED"),
]  # fmt: skip

TABLE = [*LOADS, *STORES, *MODIFIES, *FILLS, *CALLS, *EVENTS, *FRAMES, *TRACERS_OWN]
