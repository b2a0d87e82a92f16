---------------------------------- MODULE Stream ----------------------------------
(* Bytes of a stream. The ring moves bytes and never looks at them, so a byte is known by its
   position in the stream, 1, 2, 3 ...: a byte lost, doubled or moved shows as a wrong position.
   Whether the bytes themselves are the same is looked at apart from the protocol, by a digest of
   each copy.

   Here a piece of a stream is the sequence of its positions. Intervals.tla says the same with
   intervals, whose size does not grow with the number of bytes; those take the place of these where
   a long trace is followed. That the two agree is checked by the model stream_and_intervals.      *)
LOCAL INSTANCE Integers
LOCAL Seqs == INSTANCE Sequences

(* No bytes. *)
NoBytes == << >>

(* The n bytes that come after the first `before` bytes of the stream. *)
Bytes(before, n) == [k \in 1..n |-> before + k]

(* How many bytes s has. *)
Len(s) == Seqs!Len(s)

(* s, then t. *)
Append(s, t) == Seqs!\o(s, t)

(* The first n bytes of s, and s without them; n <= Len(s). *)
Take(s, n) == Seqs!SubSeq(s, 1, n)
Drop(s, n) == Seqs!SubSeq(s, n + 1, Len(s))

(* s begins with all of p. *)
IsPrefix(p, s) == Len(p) <= Len(s) /\ Take(s, Len(p)) = p
===================================================================================
