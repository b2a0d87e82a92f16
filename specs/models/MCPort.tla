---------------------------------- MODULE MCPort ----------------------------------
(* That a port as an interval (Intervals.tla) stands for all that the port of Libxenvchan.tla can be,
   when nothing tells whether the kernel has delivered: `ports` is the set of all of them.          *)
EXTENDS MCLibxenvchan, Intervals

CONSTANT Early     \* the port is unmasked once before anything was taken from it, as a client does

VARIABLES ports, interval, taken, early

Closed(some) == some \cup {PortDelivered(p) : p \in {q \in some : PortDeliverable(q)}}

PortInit ==
    /\ Init
    /\ ports = {PortIdle}
    /\ interval = IntervalPortIdle
    /\ taken = FALSE
    /\ early = Early

IsRaised ==
    /\ ports' = Closed(UNION {PortRaised(p) : p \in ports})
    /\ interval' \in IntervalPortRaised(interval)
    /\ UNCHANGED <<vars, taken, early>>

IsTaken ==
    /\ ~taken /\ ~early
    /\ \E p \in ports : PortReady(p)
    /\ ports' = Closed({PortTaken(p) : p \in {q \in ports : PortReady(q)}})
    /\ interval' = IntervalPortTaken(interval)
    /\ taken' = TRUE
    /\ UNCHANGED <<vars, early>>

IsUnmasked ==
    /\ taken \/ early
    /\ ports' = Closed({PortUnmasked(p) : p \in ports})
    /\ interval' = IntervalPortUnmasked(interval)
    /\ taken' = FALSE /\ early' = FALSE
    /\ UNCHANGED vars

PortNext == IsRaised \/ IsTaken \/ IsUnmasked

PortSpec == PortInit /\ [][PortNext]_<<vars, ports, interval, taken, early>>

WakeUps == {PortWakeUps(p) : p \in ports}

(* Exactly these, and one more at most in the time in which the queue may have two. *)
Exact ==
    \/ WakeUps = interval[1]..interval[2]
    \/ Early /\ interval[4] = 3 /\ WakeUps = interval[1]..interval[2] - 1
SameReady == ~taken /\ interval[4] = 2 => (IntervalPortReady(interval) = \E p \in ports : PortReady(p))
NeverLess == (\E p \in ports : PortReady(p)) /\ ~taken => IntervalPortReady(interval)

(* One by one they are all there, and nothing else changes. *)
Counted ==
    /\ {one[1] : one \in IntervalPortCounts(interval)} = interval[1]..interval[2]
    /\ \A one \in IntervalPortCounts(interval) :
         one[2] = one[1] /\ one[3] = interval[3] /\ one[4] = interval[4]

(* Where there is room, an event may come before the owner's next steps, and by induction before all
   that he does: what he finds when it comes later is among what he finds then. *)
Holds(some, all) ==
    /\ all[1] <= some[1] /\ some[2] <= all[2]
    /\ some[3] = all[3] /\ some[4] = all[4]

RaisedFirst ==
    ~early /\ IntervalPortRoom(interval) =>
      \A first \in IntervalPortRaised(interval) :
        /\ ~taken /\ IntervalPortReady(interval) =>
             /\ IntervalPortRoom(IntervalPortTaken(interval))
             /\ \A later \in IntervalPortRaised(IntervalPortTaken(interval)) :
                  Holds(later, IntervalPortTaken(first))
        /\ taken =>
             /\ IntervalPortRoom(IntervalPortUnmasked(interval))
             /\ \A later \in IntervalPortRaised(IntervalPortUnmasked(interval)) :
                  Holds(later, IntervalPortUnmasked(first))
===================================================================================
