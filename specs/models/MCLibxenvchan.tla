------------------------------ MODULE MCLibxenvchan ------------------------------
(* Libxenvchan for TLC: two streams with an end. The applications of a model hand over `LeftTotal`
   and `RightTotal` bytes in all, in calls of 1 to `SizeMax` bytes, and read as many at a time.
   Which thread makes which calls says a set of threads for each kind of call.                   *)
EXTENDS Refinement

CONSTANTS
    LeftTotal, RightTotal, SizeMax,
    Writers, Readers, Senders, Receivers, Waiters, Askers, Closers

MCSide(t) == IF t \in {"client", "client 2"} THEN "client" ELSE "server"

Total(d) == IF d = "left" THEN LeftTotal ELSE RightTotal

Allowed(name) ==
    CASE name = "write" -> Writers
      [] name = "read" -> Readers
      [] name = "send" -> Senders
      [] name = "recv" -> Receivers
      [] name = "wait" -> Waiters
      [] name = "close" -> Closers
      [] name \in {"data_ready", "buffer_space", "is_open"} -> Askers

MCChoice(t, name) ==
    IF t \notin Allowed(name) THEN {}
    \* Who waits before it closes is through with its own bytes.
    ELSE IF L7 /\ name = "wait" /\ Len(Sent[Out(t)]) < Total(Out(t)) THEN {}
    ELSE IF name \in {"write", "send"} THEN 1..Min(SizeMax, Total(Out(t)) - Len(Sent[Out(t)]))
    ELSE IF name \in {"read", "recv"} THEN 1..SizeMax
    ELSE {0}

(* Vchan's promises for each direction. *)
Availability == \A n \in 1..LeftTotal : Left!Arrives(n)
ShutdownOK == Left!ShutdownOK
RightAvailability == \A n \in 1..RightTotal : Right!Arrives(n)
RightShutdownOK == Right!ShutdownOK

(* More than is promised: not even a death keeps anything back. *)
Delivery == \A n \in 1..LeftTotal : (Len(Sent["left"]) >= n) ~> (Len(Got["left"]) >= n)

(* A server that waits in a call is not left there when the client is no more. *)
DeathIsTold == (fate["client"] # "alive") ~> (at["server"] # "wait" \/ fate["server"] # "alive")

(* The applications may stop reading. *)
StoppingSpec == Spec /\ LibraryIsFair /\ EventChannelIsFair

(* The client's application closes when it has handed in all. *)
Closes == <>(live["client"] = 0)
ClosingSpec == FairSpec /\ WF_vars(call_write("client")) /\ WF_vars(call_wait("client"))
               /\ SF_vars(Len(Sent["left"]) = LeftTotal /\ call_close("client"))

(* What the applications have set `blocking` to. *)
AllBlock(s) == {TRUE}
NoneBlocks(s) == {FALSE}
BothWays(s) == BOOLEAN
ClientEither(s) == IF s = "client" THEN BOOLEAN ELSE {TRUE}
=================================================================================
