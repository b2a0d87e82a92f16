----------------------------------- MODULE Vchan -----------------------------------
(***********************************************************************************
One direction of a Xen vchan: a sender that writes and a receiver that reads a stream
of bytes over one ring, as libxenvchan's blocking calls do it (tools/libs/vchan/io.c,
Xen 4.22). One access to shared memory is one step.

MODELLED. libxenvchan_write and libxenvchan_read, any size, with `blocking` set or not (a
side in GivesUp may return what there is instead of waiting); the two notify bits; the two
live bytes; the event channel port of each side; close; the death of a process; the
client's connecting. Both directions of a channel share a side's port and its thread, so
the other direction appears here as the thread being away (`s_away`, `s_back`), as a
wake-up that is not ours (`s_spurious`), and as a wait there that took a wake-up of ours
(`s_stolen`, only while the thread is away); the receiver has the same. While it is away,
buffer_space and data_ready may arm this direction's bit (`s_asks`, `r_asks`).

ABSTRACTED. The 32-bit indices are the two ends of a stream of positions (Stream.tla),
so that they never wrap. Copying the bytes and moving the index is one step (`s_put`,
`r_take`). A side's read of its own index is part of its read of the peer's: nobody else
moves it. A port is the number of wake-ups that are still to come, 0 to 2 or 3: an event finds
the port idle (0), pending or already delivered and unread; in the last case it comes
once more. Masking and unmasking are in that count. Grants and xenstore are left out.

BELIEVED. x86's locked instructions order everything before and after them, and no two
stores of one side are seen in the other order, so that a step is seen at once by both
sides. One thread a side makes all calls and closes. Nobody but the owner writes an index
or clears a live byte. xenevtchn_notify does not fail while the peer is there. When a
process dies, the kernel clears its live byte and raises the event: one step here
(`s_die`), though a peer can see the byte before the event; the wake-ups that it gets are
the same. Nobody reads no bytes: libxenvchan_read of size 0 finds an empty ring enough,
does not ask to be told of writes, and waits; it can sleep beside a ring that has filled
(the model reading_nothing_sleeps). A write of no bytes is harmless.

DEVIATES. With L1 = FALSE a receiver that has seen the sender closed looks at the ring
once more before it reports the end (`r_final`), as libxenvchan.h promises; libxenvchan
does not: L1 = TRUE. Not in this spec: a failing notify (L2, L4), server_persist (L5), a
wait that a signal ends (L8), a domain's death, which raises no event (L9), send and recv.
Libxenvchan.tla has them all.

action          | trace record                            | C: function, field
----------------+-----------------------------------------+---------------------------------
s_call          | CALL_ENTER write                        | libxenvchan_write, size
s_live          | LOAD of the peer's live byte            | libxenvchan_is_open, *_live
s_space         | LOAD of cons (and of prod, its own)     | raw_get_buffer_space, wr.cons
s_arm           | RMW or                                  | request_notify, *_notify bit 2
s_space_again   | LOAD of cons                            | fast_get_buffer_space, wr.cons
s_put           | COPY into the ring, STORE of prod       | do_send, wr.prod
s_test          | RMW and, or CMPXCHG                     | send_notify, *_notify bit 1
s_raise         | NOTIFY                                  | send_notify, xenevtchn_notify
s_wait          | PENDING_EXIT                            | libxenvchan_wait
s_live_again    | LOAD of the peer's live byte            | libxenvchan_write, *_live
s_return        | CALL_EXIT write                         | libxenvchan_write, its result
s_close         | STORE of the own live byte              | libxenvchan_close, *_live
s_close_raise   | UNSHARE_PAGE or UNMAP_PAGE in close     | libxenvchan_close
r_call          | CALL_ENTER read                         | libxenvchan_read, size
r_have          | LOAD of prod (and of cons, its own)     | raw_get_data_ready, rd.prod
r_arm           | RMW or                                  | request_notify, *_notify bit 1
r_have_again    | LOAD of prod                            | fast_get_data_ready, rd.prod
r_take          | COPY out of the ring, STORE of cons     | do_recv, rd.cons
r_test          | RMW and, or CMPXCHG                     | send_notify, *_notify bit 2
r_raise         | NOTIFY                                  | send_notify, xenevtchn_notify
r_live          | LOAD of the peer's live byte            | libxenvchan_read, *_live
r_final         | none: libxenvchan has no such step; in a trace it is hidden, taken or not
                |   as far as the values around it allow
r_wait          | PENDING_EXIT                            | libxenvchan_wait
r_return        | CALL_EXIT read                          | libxenvchan_read, its result
r_close         | STORE of the own live byte              | libxenvchan_close, *_live
r_close_raise   | UNSHARE_PAGE or UNMAP_PAGE in close     | libxenvchan_close
r_connect       | STORE of srv_notify                     | libxenvchan_client_init, srv_notify
s_away, r_away  | CALL_ENTER of the other direction
s_back, r_back  | CALL_EXIT of the other direction
s_stolen, r_stolen     | PENDING_EXIT in a call of the other direction
s_asks, r_asks  | RMW or in buffer_space, data_ready      | request_notify, *_notify
s_spurious, r_spurious | NOTIFY of the peer's other direction, of its connecting, of its close;
                |   BIND_INTERDOMAIN of the side itself
s_die, r_die    | none: nobody is left to write one; hidden, and only after the last step of
                |   a side of which it is known that it died
s_peek, r_peek, s_peek_live, r_peek_live | a LOAD of the peer's index or live byte that decides
                |   nothing: no action, the spec stutters, but the value has to be the one there
***********************************************************************************)
EXTENDS Integers, Stream

CONSTANTS
    RingBytes,      \* size of the ring
    NotifyAtStart,  \* the bit "tell me of writes" at the start: the server sets it for itself,
                    \* for the client it is 0 until it connects
    Connects,       \* the receiver is a client that is still to connect
    SenderPort,     \* wake-ups that wait at the start
    ReceiverPort,
    WakeUpsMax,     \* as many can wait on a port: 2; 3 where its owner unmasked it at the start
                    \* with one of them in the queue already, as a client does
    Environment,    \* which of *_away, *_asks, *_spurious, *_die the environment may take
    GivesUp,        \* the sides ("s", "r") whose calls may return instead of waiting
    L1,             \* the end is reported without looking at the ring once more
    Choice(_)       \* what an application asks for: Choice("write") and Choice("read")
                    \* are sets of sizes

ASSUME RingBytes \in Nat \ {0}
ASSUME NotifyAtStart \in {0, 1} /\ Connects \in BOOLEAN /\ L1 \in BOOLEAN
ASSUME WakeUpsMax \in {2, 3} /\ SenderPort \in 0..2 /\ ReceiverPort \in 0..2
ASSUME GivesUp \subseteq {"s", "r"}

Min(a, b) == IF a < b THEN a ELSE b

(* A port with that many wake-ups to come; what it can be after an event was raised on it; whether
   a wait returns; what is left after it did.                                                   *)
WakeUps(count) == count
Raised(port)   == IF port = 0 THEN {1} ELSE {port, Min(port + 1, WakeUpsMax)}
Ready(port)    == port > 0
Taken(port)    == port - 1

(* --algorithm Vchan {
  variables
    ring = NoBytes,                  \* from cons to prod
    tellOfWrites = NotifyAtStart,    \* bit 1 of the byte that the sender tests
    tellOfReads = 0,                 \* bit 2 of the byte that the receiver tests
    senderOpen = 1,                  \* live bytes
    receiverOpen = 1,
    sPort = WakeUps(SenderPort),              \* wake-ups still to come
    rPort = WakeUps(ReceiverPort),
    \* Where a side's thread is: "connecting", "app" (between calls), "here" (in a call of this
    \* direction), "away" (in a call of the other one), "closing", "gone".
    sWhere = "app",
    rWhere = IF Connects THEN "connecting" ELSE "app",
    Sent = NoBytes,                  \* all that was handed to a write
    Got = NoBytes;                   \* all that came out of a read

  macro raise(port) { with (p \in Raised(port)) port := p }

  process (Sender = "s")
    variables
      todo = NoBytes,                \* what this write has still to put
      wrote = 0,                     \* what it has put; -1: it fails
      space = 0;                     \* free bytes as last read
  {
s_call:
    while (TRUE) {
      await sWhere = "app";
      with (n \in Choice("write")) {
        todo := Bytes(Len(Sent), n);
        Sent := Append(Sent, Bytes(Len(Sent), n))
      };
      sWhere := "here";
s_live:
      await sWhere = "here";
      if (receiverOpen = 0) { wrote := -1; goto s_return };
s_space:
      await sWhere = "here";
      space := RingBytes - Len(ring);
      if (space >= Len(todo)) {
        if (Len(todo) = 0) goto s_return else goto s_put
      };
s_arm:
      await sWhere = "here";
      tellOfReads := 1;
s_space_again:
      await sWhere = "here";
      space := RingBytes - Len(ring);
      if (space = 0) {
        either goto s_wait or { await "s" \in GivesUp; goto s_return }
      };
s_put:
      await sWhere = "here";
      with (n = Min(space, Len(todo))) {
        ring := Append(ring, Take(todo, n));
        todo := Drop(todo, n);
        wrote := wrote + n
      };
      space := 0;
s_test:
      await sWhere = "here";
      if (tellOfWrites = 1) tellOfWrites := 0
      else if (Len(todo) = 0) goto s_return
      else { either goto s_wait or { await "s" \in GivesUp; goto s_return } };
s_raise:
      await sWhere = "here";
      raise(rPort);
      if (Len(todo) = 0) goto s_return
      else { either skip or { await "s" \in GivesUp; goto s_return } };
s_wait:
      await sWhere = "here" /\ Ready(sPort);
      sPort := Taken(sPort);
s_live_again:
      await sWhere = "here";
      if (receiverOpen = 1) goto s_space else wrote := -1;
s_return:
      await sWhere = "here";
      Sent := Take(Sent, Len(Sent) - Len(todo));   \* what was not put was not sent
      todo := NoBytes;
      wrote := 0;
      space := 0;
      sWhere := "app"
    }
  }

  process (SenderCloses = "s closes") {
s_close:
    await sWhere = "app";
    senderOpen := 0;
    sWhere := "closing";
s_close_raise:
    await sWhere = "closing";
    raise(rPort);
    sWhere := "gone"
  }

  process (Receiver = "r")
    variables
      want = 0,                      \* size asked for
      have = 0,                      \* bytes in the ring as last read
      took = 0,                      \* what this read returns; -1: the end
      rTold = FALSE;                 \* a read has reported the end
  {
r_call:
    while (TRUE) {
      await rWhere = "app";
      with (n \in Choice("read")) want := n;
      rWhere := "here";
r_have:
      await rWhere = "here";
      have := Len(ring);
      if (have >= want) {
        if (have = 0) goto r_live else goto r_take
      };
r_arm:
      await rWhere = "here";
      tellOfWrites := 1;
r_have_again:
      await rWhere = "here";
      have := Len(ring);
      if (have = 0) goto r_live;
r_take:
      await rWhere = "here";
      with (n = Min(have, want)) {
        Got := Append(Got, Take(ring, n));
        ring := Drop(ring, n);
        took := n
      };
      have := 0;
r_test:
      await rWhere = "here";
      if (tellOfReads = 1) tellOfReads := 0 else goto r_return;
r_raise:
      await rWhere = "here";
      raise(sPort);
      goto r_return;
r_live:
      await rWhere = "here";
      if (senderOpen = 1) {
        either goto r_wait or { await "r" \in GivesUp; goto r_return }
      }
      else if (L1) { took := -1; goto r_return };
r_final:
      await rWhere = "here";
      if (Len(ring) > 0) goto r_have
      else { took := -1; goto r_return };
r_wait:
      await rWhere = "here" /\ Ready(rPort);
      rPort := Taken(rPort);
      goto r_have;
r_return:
      await rWhere = "here";
      rTold := rTold \/ took = -1;
      want := 0;
      took := 0;
      rWhere := "app"
    }
  }

  process (ReceiverCloses = "r closes") {
r_close:
    await rWhere = "app";
    receiverOpen := 0;
    rWhere := "closing";
r_close_raise:
    await rWhere = "closing";
    raise(sPort);
    rWhere := "gone"
  }

  process (ReceiverConnects = "r connects") {
r_connect:
    await rWhere = "connecting";
    tellOfWrites := 1;
    rWhere := "app"
  }

  \* The other direction and the rest of the world, a process for each kind of step.
  process (SenderLeaves = "s leaves") {
s_away:
    while (TRUE) { await "s_away" \in Environment /\ sWhere = "app"; sWhere := "away" }
  }
  process (SenderComesBack = "s comes back") {
s_back:
    while (TRUE) { await sWhere = "away"; sWhere := "app" }
  }
  process (SenderRobbed = "s robbed") {
s_stolen:
    while (TRUE) { await sWhere = "away" /\ Ready(sPort); sPort := Taken(sPort) }
  }
  process (SenderWoken = "s woken") {
s_spurious:
    while (TRUE) { await "s_spurious" \in Environment; raise(sPort) }
  }
  process (SenderAsks = "s asks") {
s_asks:
    while (TRUE) { await "s_asks" \in Environment /\ sWhere = "away"; tellOfReads := 1 }
  }
  process (SenderDies = "s dies") {
s_die:
    await "s_die" \in Environment /\ sWhere # "gone";
    senderOpen := 0;
    raise(rPort);
    sWhere := "gone"
  }
  process (ReceiverLeaves = "r leaves") {
r_away:
    while (TRUE) { await "r_away" \in Environment /\ rWhere = "app"; rWhere := "away" }
  }
  process (ReceiverComesBack = "r comes back") {
r_back:
    while (TRUE) { await rWhere = "away"; rWhere := "app" }
  }
  process (ReceiverRobbed = "r robbed") {
r_stolen:
    while (TRUE) { await rWhere = "away" /\ Ready(rPort); rPort := Taken(rPort) }
  }
  process (ReceiverWoken = "r woken") {
r_spurious:
    while (TRUE) { await "r_spurious" \in Environment; raise(rPort) }
  }
  process (ReceiverAsks = "r asks") {
r_asks:
    while (TRUE) { await "r_asks" \in Environment /\ rWhere = "away"; tellOfWrites := 1 }
  }
  process (ReceiverDies = "r dies") {
r_die:
    await "r_die" \in Environment /\ rWhere # "gone";
    receiverOpen := 0;
    raise(sPort);
    rWhere := "gone"
  }
} *)
\* BEGIN TRANSLATION PCal-aeef996b0213470aae8a6a47a5ba7806
VARIABLES ring, tellOfWrites, tellOfReads, senderOpen, receiverOpen, sPort, 
          rPort, sWhere, rWhere, Sent, Got, pc, todo, wrote, space, want, 
          have, took, rTold

vars == << ring, tellOfWrites, tellOfReads, senderOpen, receiverOpen, sPort, 
           rPort, sWhere, rWhere, Sent, Got, pc, todo, wrote, space, want, 
           have, took, rTold >>

ProcSet == {"s"} \cup {"s closes"} \cup {"r"} \cup {"r closes"} \cup {"r connects"} \cup {"s leaves"} \cup {"s comes back"} \cup {"s robbed"} \cup {"s woken"} \cup {"s asks"} \cup {"s dies"} \cup {"r leaves"} \cup {"r comes back"} \cup {"r robbed"} \cup {"r woken"} \cup {"r asks"} \cup {"r dies"}

Init == (* Global variables *)
        /\ ring = NoBytes
        /\ tellOfWrites = NotifyAtStart
        /\ tellOfReads = 0
        /\ senderOpen = 1
        /\ receiverOpen = 1
        /\ sPort = WakeUps(SenderPort)
        /\ rPort = WakeUps(ReceiverPort)
        /\ sWhere = "app"
        /\ rWhere = IF Connects THEN "connecting" ELSE "app"
        /\ Sent = NoBytes
        /\ Got = NoBytes
        (* Process Sender *)
        /\ todo = NoBytes
        /\ wrote = 0
        /\ space = 0
        (* Process Receiver *)
        /\ want = 0
        /\ have = 0
        /\ took = 0
        /\ rTold = FALSE
        /\ pc = [self \in ProcSet |-> CASE self = "s" -> "s_call"
                                        [] self = "s closes" -> "s_close"
                                        [] self = "r" -> "r_call"
                                        [] self = "r closes" -> "r_close"
                                        [] self = "r connects" -> "r_connect"
                                        [] self = "s leaves" -> "s_away"
                                        [] self = "s comes back" -> "s_back"
                                        [] self = "s robbed" -> "s_stolen"
                                        [] self = "s woken" -> "s_spurious"
                                        [] self = "s asks" -> "s_asks"
                                        [] self = "s dies" -> "s_die"
                                        [] self = "r leaves" -> "r_away"
                                        [] self = "r comes back" -> "r_back"
                                        [] self = "r robbed" -> "r_stolen"
                                        [] self = "r woken" -> "r_spurious"
                                        [] self = "r asks" -> "r_asks"
                                        [] self = "r dies" -> "r_die"]

s_call == /\ pc["s"] = "s_call"
          /\ sWhere = "app"
          /\ \E n \in Choice("write"):
               /\ todo' = Bytes(Len(Sent), n)
               /\ Sent' = Append(Sent, Bytes(Len(Sent), n))
          /\ sWhere' = "here"
          /\ pc' = [pc EXCEPT !["s"] = "s_live"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, rWhere, Got, wrote, 
                          space, want, have, took, rTold >>

s_live == /\ pc["s"] = "s_live"
          /\ sWhere = "here"
          /\ IF receiverOpen = 0
                THEN /\ wrote' = -1
                     /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                ELSE /\ pc' = [pc EXCEPT !["s"] = "s_space"]
                     /\ wrote' = wrote
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, rWhere, Sent, 
                          Got, todo, space, want, have, took, rTold >>

s_space == /\ pc["s"] = "s_space"
           /\ sWhere = "here"
           /\ space' = RingBytes - Len(ring)
           /\ IF space' >= Len(todo)
                 THEN /\ IF Len(todo) = 0
                            THEN /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                            ELSE /\ pc' = [pc EXCEPT !["s"] = "s_put"]
                 ELSE /\ pc' = [pc EXCEPT !["s"] = "s_arm"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                           receiverOpen, sPort, rPort, sWhere, rWhere, Sent, 
                           Got, todo, wrote, want, have, took, rTold >>

s_arm == /\ pc["s"] = "s_arm"
         /\ sWhere = "here"
         /\ tellOfReads' = 1
         /\ pc' = [pc EXCEPT !["s"] = "s_space_again"]
         /\ UNCHANGED << ring, tellOfWrites, senderOpen, receiverOpen, sPort, 
                         rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                         want, have, took, rTold >>

s_space_again == /\ pc["s"] = "s_space_again"
                 /\ sWhere = "here"
                 /\ space' = RingBytes - Len(ring)
                 /\ IF space' = 0
                       THEN /\ \/ /\ pc' = [pc EXCEPT !["s"] = "s_wait"]
                               \/ /\ "s" \in GivesUp
                                  /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                       ELSE /\ pc' = [pc EXCEPT !["s"] = "s_put"]
                 /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                                 receiverOpen, sPort, rPort, sWhere, rWhere, 
                                 Sent, Got, todo, wrote, want, have, took, 
                                 rTold >>

s_put == /\ pc["s"] = "s_put"
         /\ sWhere = "here"
         /\ LET n == Min(space, Len(todo)) IN
              /\ ring' = Append(ring, Take(todo, n))
              /\ todo' = Drop(todo, n)
              /\ wrote' = wrote + n
         /\ space' = 0
         /\ pc' = [pc EXCEPT !["s"] = "s_test"]
         /\ UNCHANGED << tellOfWrites, tellOfReads, senderOpen, receiverOpen, 
                         sPort, rPort, sWhere, rWhere, Sent, Got, want, have, 
                         took, rTold >>

s_test == /\ pc["s"] = "s_test"
          /\ sWhere = "here"
          /\ IF tellOfWrites = 1
                THEN /\ tellOfWrites' = 0
                     /\ pc' = [pc EXCEPT !["s"] = "s_raise"]
                ELSE /\ IF Len(todo) = 0
                           THEN /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                           ELSE /\ \/ /\ pc' = [pc EXCEPT !["s"] = "s_wait"]
                                   \/ /\ "s" \in GivesUp
                                      /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                     /\ UNCHANGED tellOfWrites
          /\ UNCHANGED << ring, tellOfReads, senderOpen, receiverOpen, sPort, 
                          rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                          want, have, took, rTold >>

s_raise == /\ pc["s"] = "s_raise"
           /\ sWhere = "here"
           /\ \E p \in Raised(rPort):
                rPort' = p
           /\ IF Len(todo) = 0
                 THEN /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                 ELSE /\ \/ /\ TRUE
                            /\ pc' = [pc EXCEPT !["s"] = "s_wait"]
                         \/ /\ "s" \in GivesUp
                            /\ pc' = [pc EXCEPT !["s"] = "s_return"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                           receiverOpen, sPort, sWhere, rWhere, Sent, Got, 
                           todo, wrote, space, want, have, took, rTold >>

s_wait == /\ pc["s"] = "s_wait"
          /\ sWhere = "here" /\ Ready(sPort)
          /\ sPort' = Taken(sPort)
          /\ pc' = [pc EXCEPT !["s"] = "s_live_again"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, rPort, sWhere, rWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

s_live_again == /\ pc["s"] = "s_live_again"
                /\ sWhere = "here"
                /\ IF receiverOpen = 1
                      THEN /\ pc' = [pc EXCEPT !["s"] = "s_space"]
                           /\ wrote' = wrote
                      ELSE /\ wrote' = -1
                           /\ pc' = [pc EXCEPT !["s"] = "s_return"]
                /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                                receiverOpen, sPort, rPort, sWhere, rWhere, 
                                Sent, Got, todo, space, want, have, took, 
                                rTold >>

s_return == /\ pc["s"] = "s_return"
            /\ sWhere = "here"
            /\ Sent' = Take(Sent, Len(Sent) - Len(todo))
            /\ todo' = NoBytes
            /\ wrote' = 0
            /\ space' = 0
            /\ sWhere' = "app"
            /\ pc' = [pc EXCEPT !["s"] = "s_call"]
            /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                            receiverOpen, sPort, rPort, rWhere, Got, want, 
                            have, took, rTold >>

Sender == s_call \/ s_live \/ s_space \/ s_arm \/ s_space_again \/ s_put
             \/ s_test \/ s_raise \/ s_wait \/ s_live_again \/ s_return

s_close == /\ pc["s closes"] = "s_close"
           /\ sWhere = "app"
           /\ senderOpen' = 0
           /\ sWhere' = "closing"
           /\ pc' = [pc EXCEPT !["s closes"] = "s_close_raise"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, receiverOpen, 
                           sPort, rPort, rWhere, Sent, Got, todo, wrote, space, 
                           want, have, took, rTold >>

s_close_raise == /\ pc["s closes"] = "s_close_raise"
                 /\ sWhere = "closing"
                 /\ \E p \in Raised(rPort):
                      rPort' = p
                 /\ sWhere' = "gone"
                 /\ pc' = [pc EXCEPT !["s closes"] = "Done"]
                 /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                                 receiverOpen, sPort, rWhere, Sent, Got, todo, 
                                 wrote, space, want, have, took, rTold >>

SenderCloses == s_close \/ s_close_raise

r_call == /\ pc["r"] = "r_call"
          /\ rWhere = "app"
          /\ \E n \in Choice("read"):
               want' = n
          /\ rWhere' = "here"
          /\ pc' = [pc EXCEPT !["r"] = "r_have"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, Sent, Got, todo, 
                          wrote, space, have, took, rTold >>

r_have == /\ pc["r"] = "r_have"
          /\ rWhere = "here"
          /\ have' = Len(ring)
          /\ IF have' >= want
                THEN /\ IF have' = 0
                           THEN /\ pc' = [pc EXCEPT !["r"] = "r_live"]
                           ELSE /\ pc' = [pc EXCEPT !["r"] = "r_take"]
                ELSE /\ pc' = [pc EXCEPT !["r"] = "r_arm"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, rWhere, Sent, 
                          Got, todo, wrote, space, want, took, rTold >>

r_arm == /\ pc["r"] = "r_arm"
         /\ rWhere = "here"
         /\ tellOfWrites' = 1
         /\ pc' = [pc EXCEPT !["r"] = "r_have_again"]
         /\ UNCHANGED << ring, tellOfReads, senderOpen, receiverOpen, sPort, 
                         rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                         want, have, took, rTold >>

r_have_again == /\ pc["r"] = "r_have_again"
                /\ rWhere = "here"
                /\ have' = Len(ring)
                /\ IF have' = 0
                      THEN /\ pc' = [pc EXCEPT !["r"] = "r_live"]
                      ELSE /\ pc' = [pc EXCEPT !["r"] = "r_take"]
                /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                                receiverOpen, sPort, rPort, sWhere, rWhere, 
                                Sent, Got, todo, wrote, space, want, took, 
                                rTold >>

r_take == /\ pc["r"] = "r_take"
          /\ rWhere = "here"
          /\ LET n == Min(have, want) IN
               /\ Got' = Append(Got, Take(ring, n))
               /\ ring' = Drop(ring, n)
               /\ took' = n
          /\ have' = 0
          /\ pc' = [pc EXCEPT !["r"] = "r_test"]
          /\ UNCHANGED << tellOfWrites, tellOfReads, senderOpen, receiverOpen, 
                          sPort, rPort, sWhere, rWhere, Sent, todo, wrote, 
                          space, want, rTold >>

r_test == /\ pc["r"] = "r_test"
          /\ rWhere = "here"
          /\ IF tellOfReads = 1
                THEN /\ tellOfReads' = 0
                     /\ pc' = [pc EXCEPT !["r"] = "r_raise"]
                ELSE /\ pc' = [pc EXCEPT !["r"] = "r_return"]
                     /\ UNCHANGED tellOfReads
          /\ UNCHANGED << ring, tellOfWrites, senderOpen, receiverOpen, sPort, 
                          rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                          want, have, took, rTold >>

r_raise == /\ pc["r"] = "r_raise"
           /\ rWhere = "here"
           /\ \E p \in Raised(sPort):
                sPort' = p
           /\ pc' = [pc EXCEPT !["r"] = "r_return"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                           receiverOpen, rPort, sWhere, rWhere, Sent, Got, 
                           todo, wrote, space, want, have, took, rTold >>

r_live == /\ pc["r"] = "r_live"
          /\ rWhere = "here"
          /\ IF senderOpen = 1
                THEN /\ \/ /\ pc' = [pc EXCEPT !["r"] = "r_wait"]
                        \/ /\ "r" \in GivesUp
                           /\ pc' = [pc EXCEPT !["r"] = "r_return"]
                     /\ took' = took
                ELSE /\ IF L1
                           THEN /\ took' = -1
                                /\ pc' = [pc EXCEPT !["r"] = "r_return"]
                           ELSE /\ pc' = [pc EXCEPT !["r"] = "r_final"]
                                /\ took' = took
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, rWhere, Sent, 
                          Got, todo, wrote, space, want, have, rTold >>

r_final == /\ pc["r"] = "r_final"
           /\ rWhere = "here"
           /\ IF Len(ring) > 0
                 THEN /\ pc' = [pc EXCEPT !["r"] = "r_have"]
                      /\ took' = took
                 ELSE /\ took' = -1
                      /\ pc' = [pc EXCEPT !["r"] = "r_return"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                           receiverOpen, sPort, rPort, sWhere, rWhere, Sent, 
                           Got, todo, wrote, space, want, have, rTold >>

r_wait == /\ pc["r"] = "r_wait"
          /\ rWhere = "here" /\ Ready(rPort)
          /\ rPort' = Taken(rPort)
          /\ pc' = [pc EXCEPT !["r"] = "r_have"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, sWhere, rWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

r_return == /\ pc["r"] = "r_return"
            /\ rWhere = "here"
            /\ rTold' = (rTold \/ took = -1)
            /\ want' = 0
            /\ took' = 0
            /\ rWhere' = "app"
            /\ pc' = [pc EXCEPT !["r"] = "r_call"]
            /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                            receiverOpen, sPort, rPort, sWhere, Sent, Got, 
                            todo, wrote, space, have >>

Receiver == r_call \/ r_have \/ r_arm \/ r_have_again \/ r_take \/ r_test
               \/ r_raise \/ r_live \/ r_final \/ r_wait \/ r_return

r_close == /\ pc["r closes"] = "r_close"
           /\ rWhere = "app"
           /\ receiverOpen' = 0
           /\ rWhere' = "closing"
           /\ pc' = [pc EXCEPT !["r closes"] = "r_close_raise"]
           /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, sPort, 
                           rPort, sWhere, Sent, Got, todo, wrote, space, want, 
                           have, took, rTold >>

r_close_raise == /\ pc["r closes"] = "r_close_raise"
                 /\ rWhere = "closing"
                 /\ \E p \in Raised(sPort):
                      sPort' = p
                 /\ rWhere' = "gone"
                 /\ pc' = [pc EXCEPT !["r closes"] = "Done"]
                 /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                                 receiverOpen, rPort, sWhere, Sent, Got, todo, 
                                 wrote, space, want, have, took, rTold >>

ReceiverCloses == r_close \/ r_close_raise

r_connect == /\ pc["r connects"] = "r_connect"
             /\ rWhere = "connecting"
             /\ tellOfWrites' = 1
             /\ rWhere' = "app"
             /\ pc' = [pc EXCEPT !["r connects"] = "Done"]
             /\ UNCHANGED << ring, tellOfReads, senderOpen, receiverOpen, 
                             sPort, rPort, sWhere, Sent, Got, todo, wrote, 
                             space, want, have, took, rTold >>

ReceiverConnects == r_connect

s_away == /\ pc["s leaves"] = "s_away"
          /\ "s_away" \in Environment /\ sWhere = "app"
          /\ sWhere' = "away"
          /\ pc' = [pc EXCEPT !["s leaves"] = "s_away"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, rWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

SenderLeaves == s_away

s_back == /\ pc["s comes back"] = "s_back"
          /\ sWhere = "away"
          /\ sWhere' = "app"
          /\ pc' = [pc EXCEPT !["s comes back"] = "s_back"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, rWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

SenderComesBack == s_back

s_stolen == /\ pc["s robbed"] = "s_stolen"
            /\ sWhere = "away" /\ Ready(sPort)
            /\ sPort' = Taken(sPort)
            /\ pc' = [pc EXCEPT !["s robbed"] = "s_stolen"]
            /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                            receiverOpen, rPort, sWhere, rWhere, Sent, Got, 
                            todo, wrote, space, want, have, took, rTold >>

SenderRobbed == s_stolen

s_spurious == /\ pc["s woken"] = "s_spurious"
              /\ "s_spurious" \in Environment
              /\ \E p \in Raised(sPort):
                   sPort' = p
              /\ pc' = [pc EXCEPT !["s woken"] = "s_spurious"]
              /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                              receiverOpen, rPort, sWhere, rWhere, Sent, Got, 
                              todo, wrote, space, want, have, took, rTold >>

SenderWoken == s_spurious

s_asks == /\ pc["s asks"] = "s_asks"
          /\ "s_asks" \in Environment /\ sWhere = "away"
          /\ tellOfReads' = 1
          /\ pc' = [pc EXCEPT !["s asks"] = "s_asks"]
          /\ UNCHANGED << ring, tellOfWrites, senderOpen, receiverOpen, sPort, 
                          rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                          want, have, took, rTold >>

SenderAsks == s_asks

s_die == /\ pc["s dies"] = "s_die"
         /\ "s_die" \in Environment /\ sWhere # "gone"
         /\ senderOpen' = 0
         /\ \E p \in Raised(rPort):
              rPort' = p
         /\ sWhere' = "gone"
         /\ pc' = [pc EXCEPT !["s dies"] = "Done"]
         /\ UNCHANGED << ring, tellOfWrites, tellOfReads, receiverOpen, sPort, 
                         rWhere, Sent, Got, todo, wrote, space, want, have, 
                         took, rTold >>

SenderDies == s_die

r_away == /\ pc["r leaves"] = "r_away"
          /\ "r_away" \in Environment /\ rWhere = "app"
          /\ rWhere' = "away"
          /\ pc' = [pc EXCEPT !["r leaves"] = "r_away"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

ReceiverLeaves == r_away

r_back == /\ pc["r comes back"] = "r_back"
          /\ rWhere = "away"
          /\ rWhere' = "app"
          /\ pc' = [pc EXCEPT !["r comes back"] = "r_back"]
          /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                          receiverOpen, sPort, rPort, sWhere, Sent, Got, todo, 
                          wrote, space, want, have, took, rTold >>

ReceiverComesBack == r_back

r_stolen == /\ pc["r robbed"] = "r_stolen"
            /\ rWhere = "away" /\ Ready(rPort)
            /\ rPort' = Taken(rPort)
            /\ pc' = [pc EXCEPT !["r robbed"] = "r_stolen"]
            /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                            receiverOpen, sPort, sWhere, rWhere, Sent, Got, 
                            todo, wrote, space, want, have, took, rTold >>

ReceiverRobbed == r_stolen

r_spurious == /\ pc["r woken"] = "r_spurious"
              /\ "r_spurious" \in Environment
              /\ \E p \in Raised(rPort):
                   rPort' = p
              /\ pc' = [pc EXCEPT !["r woken"] = "r_spurious"]
              /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, 
                              receiverOpen, sPort, sWhere, rWhere, Sent, Got, 
                              todo, wrote, space, want, have, took, rTold >>

ReceiverWoken == r_spurious

r_asks == /\ pc["r asks"] = "r_asks"
          /\ "r_asks" \in Environment /\ rWhere = "away"
          /\ tellOfWrites' = 1
          /\ pc' = [pc EXCEPT !["r asks"] = "r_asks"]
          /\ UNCHANGED << ring, tellOfReads, senderOpen, receiverOpen, sPort, 
                          rPort, sWhere, rWhere, Sent, Got, todo, wrote, space, 
                          want, have, took, rTold >>

ReceiverAsks == r_asks

r_die == /\ pc["r dies"] = "r_die"
         /\ "r_die" \in Environment /\ rWhere # "gone"
         /\ receiverOpen' = 0
         /\ \E p \in Raised(sPort):
              sPort' = p
         /\ rWhere' = "gone"
         /\ pc' = [pc EXCEPT !["r dies"] = "Done"]
         /\ UNCHANGED << ring, tellOfWrites, tellOfReads, senderOpen, rPort, 
                         sWhere, Sent, Got, todo, wrote, space, want, have, 
                         took, rTold >>

ReceiverDies == r_die

Next == Sender \/ SenderCloses \/ Receiver \/ ReceiverCloses
           \/ ReceiverConnects \/ SenderLeaves \/ SenderComesBack \/ SenderRobbed
           \/ SenderWoken \/ SenderAsks \/ SenderDies \/ ReceiverLeaves
           \/ ReceiverComesBack \/ ReceiverRobbed \/ ReceiverWoken
           \/ ReceiverAsks \/ ReceiverDies

Spec == Init /\ [][Next]_vars

\* END TRANSLATION TLA-d0123bafce01f4202f211b64f3f10ae4

-----------------------------------------------------------------------------------
(* SAFETY *)

Where == {"connecting", "app", "here", "away", "closing", "gone"}

TypeOK ==
    /\ tellOfWrites \in {0, 1} /\ tellOfReads \in {0, 1}
    /\ senderOpen \in {0, 1} /\ receiverOpen \in {0, 1}
    /\ sPort \in 0..WakeUpsMax /\ rPort \in 0..WakeUpsMax
    /\ sWhere \in Where \ {"connecting"} /\ rWhere \in Where
    /\ space \in 0..RingBytes /\ have \in 0..RingBytes
    /\ wrote \in Int /\ want \in Nat /\ took \in Int /\ rTold \in BOOLEAN

(* What comes out is what was handed in: nothing lost, doubled or moved. *)
Integrity == IsPrefix(Got, Sent)

(* The ring never holds more than fits. *)
RingBound == Len(ring) <= RingBytes

(* Blocked, with no wake-up to come. *)
SenderAsleep == sWhere = "here" /\ pc["s"] = "s_wait" /\ ~Ready(sPort)
ReceiverAsleep == rWhere = "here" /\ pc["r"] = "r_wait" /\ ~Ready(rPort)

(* Neither side has a step of the protocol to take: asleep, or its application does not call. *)
NothingMoves ==
    /\ SenderAsleep \/ sWhere \in {"app", "away", "gone"}
    /\ ReceiverAsleep \/ rWhere \in {"connecting", "app", "away", "gone"}

(* No deadlock: who sleeps while nothing moves has a reason that only the other application can
   remove. A full ring and an empty one at once cannot be, so both never sleep.               *)
NoDeadlock ==
    NothingMoves =>
      /\ SenderAsleep => Len(ring) = RingBytes /\ receiverOpen = 1
      /\ ReceiverAsleep => Len(ring) = 0 /\ senderOpen = 1

(* The end is reported only after the sender closed and when there is nothing left. *)
EndIsTheEnd == rTold => senderOpen = 0 /\ Len(ring) = 0

-----------------------------------------------------------------------------------
(* FAIRNESS, a name for each conjunct so that a missing one can be named. *)

(* The library goes on once it was called. *)
FairSenderLive      == WF_vars(s_live)
FairSenderSpace     == WF_vars(s_space)
FairSenderArm       == WF_vars(s_arm)
FairSenderAgain     == WF_vars(s_space_again)
FairSenderPut       == WF_vars(s_put)
FairSenderTest      == WF_vars(s_test)
FairSenderRaise     == WF_vars(s_raise)
FairSenderLiveAgain == WF_vars(s_live_again)
FairSenderReturn    == WF_vars(s_return)
FairSenderClose     == WF_vars(s_close_raise)
FairReceiverHave    == WF_vars(r_have)
FairReceiverArm     == WF_vars(r_arm)
FairReceiverAgain   == WF_vars(r_have_again)
FairReceiverTake    == WF_vars(r_take)
FairReceiverTest    == WF_vars(r_test)
FairReceiverRaise   == WF_vars(r_raise)
FairReceiverLive    == WF_vars(r_live)
FairReceiverFinal   == WF_vars(r_final)
FairReceiverReturn  == WF_vars(r_return)
FairReceiverClose   == WF_vars(r_close_raise)
FairReceiverConnect == WF_vars(r_connect)

LibraryIsFair ==
    /\ FairSenderLive /\ FairSenderSpace /\ FairSenderArm /\ FairSenderAgain /\ FairSenderPut
    /\ FairSenderTest /\ FairSenderRaise /\ FairSenderLiveAgain /\ FairSenderReturn
    /\ FairSenderClose
    /\ FairReceiverHave /\ FairReceiverArm /\ FairReceiverAgain /\ FairReceiverTake
    /\ FairReceiverTest /\ FairReceiverRaise /\ FairReceiverLive /\ FairReceiverFinal
    /\ FairReceiverReturn /\ FairReceiverClose /\ FairReceiverConnect

(* The event channel: who waits and has a wake-up to come is woken. *)
FairSenderWait   == WF_vars(s_wait)
FairReceiverWait == WF_vars(r_wait)

EventChannelIsFair == FairSenderWait /\ FairReceiverWait

(* The receiver's application reads as long as there is something to read or an end to be told.
   Strong fairness, because it may be in the other direction's calls in between. The sender's
   application owes nothing.                                                                  *)
ReadIsDue == ~rTold /\ (Len(ring) > 0 \/ senderOpen = 0)
r_call_due == ReadIsDue /\ r_call

FairReceiverCall == SF_vars(r_call_due)

(* Not of this protocol: the calls of the other direction return. *)
OtherDirectionReturns == WF_vars(s_back) /\ WF_vars(r_back)

Fairness == LibraryIsFair /\ EventChannelIsFair /\ FairReceiverCall

FairSpec == Spec /\ Fairness /\ OtherDirectionReturns

-----------------------------------------------------------------------------------
(* LIVENESS *)

(* Bytes that their writer, dead in the middle of a write, never put into the ring. *)
CutOff == IF sWhere = "gone" THEN Len(todo) ELSE 0

(* The first n bytes of the stream come out, unless the receiver closes or dies. *)
Arrives(n) ==
    Len(Sent) - CutOff >= n ~> Len(Got) >= n \/ receiverOpen = 0 \/ Len(Sent) - CutOff < n

(* A close or a death at one side ends every call at the other, and the receiver is told. *)
ShutdownOK ==
    /\ (senderOpen = 0) ~> (rTold \/ receiverOpen = 0)
    /\ (senderOpen = 0) ~> (rWhere # "here")
    /\ (receiverOpen = 0) ~> (sWhere # "here")

(* What is still owed, asked of a state in which nothing moves. *)
BytesOwed == receiverOpen = 1 /\ Len(Sent) - CutOff > Len(Got)
WriteOwed == sWhere = "here"
ReadOwed  == rWhere = "here" /\ (Len(ring) > 0 \/ senderOpen = 0)
EndOwed   == senderOpen = 0 /\ receiverOpen = 1 /\ ~rTold
====================================================================================
