--------------------------------- MODULE MCVchan ----------------------------------
(* Vchan for TLC: a bounded stream. The applications of a model hand over `Total` bytes in all, in
   writes of 1 to `WriteMax`, and read 1 to `ReadMax` at a time.                                *)
EXTENDS Vchan

CONSTANTS Total, WriteMax, ReadMax

MCChoice(what) ==
    IF what = "write" THEN 1..Min(WriteMax, Total - Size(Sent)) ELSE 1..ReadMax

Availability == \A n \in 1..Total : Arrives(n)
===================================================================================
