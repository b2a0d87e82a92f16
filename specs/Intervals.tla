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

RECURSIVE IntervalSize(_)
IntervalSize(s) ==
    IF s = << >> THEN 0
    ELSE IF Len(s) = 1 THEN s[1][2] - s[1][1] + 1
    ELSE s[1][2] - s[1][1] + 1 + IntervalSize(Tail(s))

IntervalJoin(s, t) ==
    IF s = << >> THEN t
    ELSE IF t = << >> THEN s
    ELSE IF s[Len(s)][2] + 1 = t[1][1]
         THEN IF Len(s) = 1 /\ Len(t) = 1
              THEN << <<s[1][1], t[1][2]>> >>
              ELSE SubSeq(s, 1, Len(s) - 1) \o << <<s[Len(s)][1], t[1][2]>> >> \o Tail(t)
         ELSE s \o t

RECURSIVE IntervalFirst(_, _)
IntervalFirst(s, n) ==
    IF n = 0 THEN << >>
    ELSE LET here == s[1][2] - s[1][1] + 1 IN
         IF n < here THEN << <<s[1][1], s[1][1] + n - 1>> >>
         ELSE <<s[1]>> \o IntervalFirst(Tail(s), n - here)

RECURSIVE IntervalRest(_, _)
IntervalRest(s, n) ==
    IF n = 0 THEN s
    ELSE LET here == s[1][2] - s[1][1] + 1 IN
         IF n < here THEN << <<s[1][1] + n, s[1][2]>> >> \o Tail(s)
         ELSE IntervalRest(Tail(s), n - here)

IntervalStartsWith(s, t) ==
    /\ IntervalSize(t) <= IntervalSize(s)
    /\ IntervalFirst(s, IntervalSize(t)) = t

IntervalWakeUps(count) == <<count, count>>

IntervalRaised(port) ==
    { <<IF port[1] = 2 THEN 2 ELSE 1, IF port[2] = 0 THEN 1 ELSE 2>> }

IntervalReady(port) == port[2] > 0

IntervalTaken(port) == <<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1>>

(* An event makes one wake-up more, whatever the number. *)
IntervalRoom(port) == port[2] < 2

IntervalCounts(port) == { <<count, count>> : count \in port[1]..port[2] }
===================================================================================
