--------------------------------- MODULE MCStream ---------------------------------
(* That streams as sequences (Stream.tla) and as intervals (Intervals.tla) are the same: whatever is
   made of both by the same operations stays the same. Pieces may lie anywhere in the stream, so
   that there are gaps, and bytes that come twice or out of order. Two streams, so that the one may
   be a prefix of the other.                                                                      *)
EXTENDS Integers, Stream, Intervals

CONSTANTS PositionMax, LenMax

VARIABLES s, t,  \* as sequences
          i, j   \* as intervals

(* The sequence that intervals stand for, without their own operators. *)
RECURSIVE Expanded(_)
Expanded(intervals) ==
    IF intervals = << >> THEN NoBytes
    ELSE LET first == intervals[1] IN
         Append(Bytes(first[1] - 1, first[2] - first[1] + 1), Expanded(Drop(intervals, 1)))

(* None empty, none that could be joined with the one after it. *)
Canonical(intervals) ==
    \A k \in DOMAIN intervals :
      /\ intervals[k][1] <= intervals[k][2]
      /\ k + 1 \in DOMAIN intervals => intervals[k][2] + 1 # intervals[k + 1][1]

Init == s = NoBytes /\ t = NoBytes /\ i = IntervalNoBytes /\ j = IntervalNoBytes

Grows ==
    \E before \in 0..PositionMax - 1, n \in 0..PositionMax :
      /\ before + n <= PositionMax /\ Len(s) + n <= LenMax
      /\ s' = Append(s, Bytes(before, n))
      /\ i' = IntervalAppend(i, IntervalBytes(before, n))
      /\ UNCHANGED <<t, j>>

Shrinks ==
    \E n \in 0..Len(s) :
      /\ s' = Drop(s, n)
      /\ i' = IntervalDrop(i, n)
      /\ UNCHANGED <<t, j>>

IsCut ==
    \E n \in 0..Len(s) :
      /\ s' = Take(s, n)
      /\ i' = IntervalTake(i, n)
      /\ UNCHANGED <<t, j>>

ChangesPlaces == s' = t /\ t' = s /\ i' = j /\ j' = i

Join ==
    /\ Len(s) + Len(t) <= LenMax
    /\ s' = Append(s, t)
    /\ i' = IntervalAppend(i, j)
    /\ UNCHANGED <<t, j>>

Next == Grows \/ Shrinks \/ IsCut \/ ChangesPlaces \/ Join

Spec == Init /\ [][Next]_<<s, t, i, j>>

Same == Expanded(i) = s /\ Expanded(j) = t /\ Canonical(i) /\ Canonical(j)
SameLen == IntervalLen(i) = Len(s)
SamePrefix == IntervalIsPrefix(j, i) = IsPrefix(t, s)
===================================================================================
