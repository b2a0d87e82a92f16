--------------------------------- MODULE MCVchan ----------------------------------
(* Vchan for TLC: a bounded stream. The applications of a model hand over `Total` bytes in all, in
   writes of `WriteMin` to `WriteMax`, and read `ReadMin` to `ReadMax` at a time.               *)
EXTENDS Vchan

CONSTANTS Total, WriteMin, WriteMax, ReadMin, ReadMax

MCChoice(what) ==
    IF what = "write" THEN WriteMin..Min(WriteMax, Total - Len(Sent)) ELSE ReadMin..ReadMax

(* Fair, but that nothing says that the calls of the other direction return. *)
ProtocolFairSpec == Spec /\ Fairness

Availability == \A n \in 1..Total : Arrives(n)
===================================================================================
