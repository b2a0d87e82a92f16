---------------------------------- MODULE Stream ----------------------------------
(* Bytes of a stream. The ring moves bytes and never looks at them, so a byte is known by its
   position in the stream, 1, 2, 3 ...: a byte lost, doubled or moved shows as a wrong position.

   Here a piece of a stream is the sequence of its positions. Intervals.tla says the same with
   intervals, whose size does not grow with the number of bytes; a .cfg puts those in the place of
   these where a long trace is followed.                                                        *)
LOCAL INSTANCE Integers
LOCAL INSTANCE Sequences

(* No bytes. *)
NoBytes == << >>

(* The n bytes that come after the first `before` bytes of the stream. *)
Bytes(before, n) == [k \in 1..n |-> before + k]

(* How many bytes s has. *)
Size(s) == Len(s)

(* s, then t. *)
Join(s, t) == s \o t

(* The first n bytes of s, and all the others; n <= Size(s). *)
First(s, n) == SubSeq(s, 1, n)
Rest(s, n)  == SubSeq(s, n + 1, Len(s))

(* s begins with all of t. *)
StartsWith(s, t) == Size(t) <= Size(s) /\ First(s, Size(t)) = t
===================================================================================
