-------------------------------- MODULE Intervals ---------------------------------
(* Streams and ports as intervals, for following a long trace. The operators stand for those of
   Stream.tla and of Vchan.tla with the same name behind `Interval`.

   A piece of a stream is a sequence of <<from, to>>, both ends inclusive, none empty, and none
   that could be joined with the one after it. What is in order and without gaps is one interval,
   however long.

   A port is <<least, most>>: the wake-ups that are to come are any number from the one to the
   other. An event that finds one wake-up to come may be lost in it or not, and nothing in a trace
   tells which, so that a trace with many events has many states that differ only in this. One
   state with an interval stands for them all: its successor stands for exactly their successors.
   IntervalCounts has the numbers one by one again.                                              *)
LOCAL INSTANCE Integers
LOCAL INSTANCE Sequences

IntervalNoBytes == << >>

IntervalBytes(before, n) == IF n = 0 THEN << >> ELSE << <<before + 1, before + n>> >>

RECURSIVE IntervalLen(_)
IntervalLen(s) ==
    IF s = << >> THEN 0
    ELSE IF Len(s) = 1 THEN s[1][2] - s[1][1] + 1
    ELSE s[1][2] - s[1][1] + 1 + IntervalLen(Tail(s))

IntervalAppend(s, t) ==
    IF s = << >> THEN t
    ELSE IF t = << >> THEN s
    ELSE IF s[Len(s)][2] + 1 = t[1][1]
         THEN IF Len(s) = 1 /\ Len(t) = 1
              THEN << <<s[1][1], t[1][2]>> >>
              ELSE SubSeq(s, 1, Len(s) - 1) \o << <<s[Len(s)][1], t[1][2]>> >> \o Tail(t)
         ELSE s \o t

RECURSIVE IntervalTake(_, _)
IntervalTake(s, n) ==
    IF n = 0 THEN << >>
    ELSE LET here == s[1][2] - s[1][1] + 1 IN
         IF n < here THEN << <<s[1][1], s[1][1] + n - 1>> >>
         ELSE <<s[1]>> \o IntervalTake(Tail(s), n - here)

RECURSIVE IntervalDrop(_, _)
IntervalDrop(s, n) ==
    IF n = 0 THEN s
    ELSE LET here == s[1][2] - s[1][1] + 1 IN
         IF n < here THEN << <<s[1][1] + n, s[1][2]>> >> \o Tail(s)
         ELSE IntervalDrop(Tail(s), n - here)

IntervalIsPrefix(p, s) ==
    /\ IntervalLen(p) <= IntervalLen(s)
    /\ IntervalTake(s, IntervalLen(p)) = p

IntervalWakeUps(count) == <<count, count>>

IntervalRaised(port) ==
    { <<IF port[1] = 0 THEN 1 ELSE port[1], IF port[2] = 3 THEN 3 ELSE port[2] + 1>> }

IntervalReady(port) == port[2] > 0

IntervalTaken(port) == <<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1>>

(* An event makes one wake-up more, whatever the number. *)
IntervalRoom(port) == port[2] < 3

IntervalCounts(port) == { <<count, count>> : count \in port[1]..port[2] }

(* The ports of Libxenvchan.tla: <<least, most, held, max>>. A port is held from when it is taken until
   it is unmasked: nothing is delivered meanwhile, so that whatever is raised on it becomes one event.
   The kernel's delivery is not a step of its own here: one wake-up may be in the queue whenever
   there are any and the port is not held. `max` is 2, and 3 from when a port is unmasked with an
   event in the queue, until one is unmasked that is empty: the queue may have two in that time. Then
   an interval can have one wake-up more than its port could. (Models: port_and_interval,
   port_unmasked_early.)                                                                           *)
IntervalPortIdle == <<0, 0, FALSE, 2>>

IntervalPortRaised(port) ==
    LET max == IF port[3] THEN port[4] - 1 ELSE port[4] IN
    IF port[3] /\ port[4] = 2 THEN { <<1, 1, TRUE, 2>> }
    ELSE { <<IF port[1] = 0 THEN 1 ELSE port[1],
             IF port[2] >= max THEN port[2] ELSE port[2] + 1, port[3], port[4]>> }

IntervalPortDeliverable(port) == FALSE

IntervalPortDelivered(port) == port

IntervalPortReady(port) == port[2] > 0 /\ ~port[3]

IntervalPortTaken(port) ==
    <<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1, TRUE, port[4]>>

IntervalPortUnmasked(port) ==
    <<port[1], port[2], FALSE, IF port[2] = 0 THEN 2 ELSE IF port[3] THEN port[4] ELSE 3>>

IntervalPortWakeUps(port) == port[1]

(* An event makes one wake-up more, and the states that it leads to hold those in which it comes
   later. Not so while a port is held and has one waiting, which it would be lost in, nor where the
   queue may have two.                                                                            *)
IntervalPortRoom(port) == port[4] = 2 /\ port[2] < IF port[3] THEN 1 ELSE 2

IntervalPortCounts(port) == { <<count, count, port[3], port[4]>> : count \in port[1]..port[2] }
===================================================================================
