------------------------------ MODULE MCPlaces ------------------------------
(* What the page of a channel looks like, and where its two ends may be then: every reachable state,
   seen as somebody sees it who looks at the page from outside. The applications go on for ever, so
   that nothing is left of a stream but how many bytes are in the ring.                           *)
EXTENDS Libxenvchan, TLC

CONSTANTS SizeMax, Calls

MCSide(t) == t

MCChoice(t, name) ==
    IF name \notin Calls THEN {}
    ELSE IF name \in {"write", "send", "read", "recv"} THEN 1..SizeMax ELSE {0}

AllBlock(s) == {TRUE}
BothWays(s) == BOOLEAN

(* TLC's VIEW: positions in the streams grow for ever, and no step asks for them. *)
Apart == <<Held("left"), Held("right"), notify, live, port, hold, at, doing, blocks,
           [t \in Threads |-> Len(todo[t])], want, seen, ended>>

Filled(d) == IF Held(d) = 0 THEN "empty" ELSE IF Held(d) = RingSize(d) THEN "full" ELSE "some"

(* The call that sleeps, "app" between calls, "gone" behind close, "call" within one. *)
Where(s) == IF at[s] \in {"app", "gone"} THEN at[s] ELSE IF at[s] = "wait" THEN doing[s] ELSE "call"

Event(s) == PortWakeUps(port[s]) > 0

SomethingIsThere(s) == Len(ring[In(s)]) > 0 \/ live[Peer(s)] = 0

(* What is due of a side that is to go on: its wake-up, the library's next step, a read. An application
   that polls its event descriptor by itself is between calls; one that sleeps in a wait of its own
   beside something to read has not looked (NoWaitInVain).                                        *)
Due(s) ==
    (IF at[s] = "wait" /\ Event(s) THEN {"event"} ELSE {})
    \cup (IF at[s] = "app" /\ Event(s) THEN {"poll"} ELSE {})
    \cup (IF at[s] = "wait" /\ doing[s] = "wait" /\ ~Event(s) /\ SomethingIsThere(s)
          THEN {"look"} ELSE {})
    \cup (IF Where(s) = "call" THEN {"step"} ELSE {})
    \cup (IF at[s] = "app" /\ SomethingIsThere(s) THEN {"read"} ELSE {})

(* Both sleep, and what is in the ring is not enough for the one that it is for (BytesOwed). *)
WaitsForMore(s) == Stands(s, {"recv"}) /\ Len(ring[In(s)]) > 0 /\ Asleep(Peer(s))

(* Stops that nobody promises not to come. *)
Stop == (IF NoStandoff /\ \A s \in Sides : ~WaitsForMore(s) THEN {} ELSE {"packets"})
        \cup (IF NoMutualWrites THEN {} ELSE {"writes"})

Place == <<Filled("left"), Filled("right"), notify["client"], notify["server"],
          live["client"], live["server"], Where("client"), Where("server"),
          Due("client"), Due("server"), Stop>>

Collect ==
    Place \in TLCGet(1) \/ (TLCSet(1, TLCGet(1) \cup {Place}) /\ PrintT(ToString(<<"place", Place>>)))

MCSpec == Init /\ TLCSet(1, {}) /\ [][Next]_vars
=============================================================================
