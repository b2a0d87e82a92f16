------------------------------- MODULE Libxenvchan -------------------------------
(***********************************************************************************
What libxenvchan does (tools/libs/vchan/init.c and io.c, Xen 4.22): both directions of one channel,
as the two ends' threads make its calls. One access to shared memory is one step. Vchan.tla is the
protocol that it keeps in each direction, when it keeps it.

MODELLED. Two sides, "client" and "server", and two directions: "left" is what the client writes,
"right" what the server writes. For each direction prod and cons, unsigned and wrapping at
IndexSpan. For each side one live byte, one notify byte with a bit for each direction, and one event
channel port, which is pending, masked, and in the file's queue up to twice. Opening the channel; write and read, send
and recv, each with `blocking` set or not; data_ready, buffer_space, is_open, wait; close at any
point between calls; the death of a process and of a domain. Several threads a side, if the
applications are such.

ABSTRACTED. Copying the bytes and moving the index is one step (w_put, r_take); the bytes are
positions in their stream (Stream.tla). A side's read of its own index is part of its read of the
peer's: nobody else moves it. The page is filled from the start: nobody sees it before the keys are
in xenstore. Grants, orders and the pages of the rings are left out, and so is a channel that could
not be opened. A raise on a port that its owner has not bound yet is not lost here: binding makes the
port pending anyway.

BELIEVED. As in Vchan.tla: x86's locked instructions order everything; nobody but the owner writes
an index or clears a live byte; when a process dies, the kernel clears its live byte and raises the
event in one step. One thread at a time calls in one direction, and nobody calls while the channel is
being closed. The kernel's handler masks a port when it puts it into the file's queue, and unmasking
lets a pending one come again at once.

DEVIATES. The switches, each of which only adds behaviours. With all of them FALSE the library keeps
what libxenvchan.h and the protocol promise.
  L1  read and recv report the end without looking at the ring once more
  L2  a blocking write whose notify fails goes on one byte before all that it has just put
  L3  `blocking` is what the memory happened to hold, where the application has not set it
  L4  a call whose notify fails returns -1, though the index has moved
  L5  a server with server_persist set never asks whether the client is there
  L6  close raises two events, the kernel's and the library's own: legal
  L7  an application that is through waits once more before it closes (vchan-socket-proxy,
      node-select): an application's, not the library's
  L8  a wait that a signal ends makes the call fail
  L9  the death of a domain raises no event and leaves its live byte as it is

t is a thread, s a side. Steps that no record shows are hidden, and say why.

action          | trace record                            | C: function, field
----------------+-----------------------------------------+---------------------------------
i_bind          | BIND_UNBOUND                            | init_evt_srv
i_share         | SHARE_PAGE                              | init_gnt_srv
i_publish       | hidden: xenstore is not traced          | init_xs_srv, its transaction
k_keys          | hidden: xenstore is not traced          | libxenvchan_client_init, xs_read
k_bind          | BIND_INTERDOMAIN                        | init_evt_cli
k_unmask        | UNMASK                                  | init_evt_cli
k_map           | MAP_PAGE                                | init_gnt_cli
k_live          | STORE of cli_live                       | libxenvchan_client_init, cli_live
k_notify        | STORE of srv_notify                     | libxenvchan_client_init, srv_notify
k_raise         | NOTIFY                                  | libxenvchan_client_init
call_write      | CALL_ENTER write                        | libxenvchan_write, size
call_send       | CALL_ENTER send                         | libxenvchan_send, size
call_read       | CALL_ENTER read                         | libxenvchan_read, size
call_recv       | CALL_ENTER recv                         | libxenvchan_recv, size
call_wait       | CALL_ENTER wait                         | libxenvchan_wait
call_data_ready | CALL_ENTER data_ready                   | libxenvchan_data_ready
call_buffer_space | CALL_ENTER buffer_space               | libxenvchan_buffer_space
call_is_open    | CALL_ENTER is_open                      | libxenvchan_is_open
call_close      | CALL_ENTER close                        | libxenvchan_close
return          | CALL_EXIT                               | the call's result
w_live          | LOAD of the peer's live byte            | libxenvchan_is_open, *_live
w_space         | LOAD of cons (and of prod, its own)     | raw_get_buffer_space, wr.cons
w_arm           | RMW or, bit 2                           | request_notify, *_notify
w_space_again   | LOAD of cons                            | raw_get_buffer_space, wr.cons
w_put           | COPY into the ring, STORE of prod       | do_send, wr.prod
w_test          | RMW and, bit 1                          | send_notify, *_notify
w_raise         | NOTIFY                                  | send_notify, xenevtchn_notify
w_raise_fails   | NOTIFY whose result is not 0            | do_send
w_live_again    | LOAD of the peer's live byte            | libxenvchan_write, *_live
r_have          | LOAD of prod (and of cons, its own)     | raw_get_data_ready, rd.prod
r_arm           | RMW or, bit 1                           | request_notify, *_notify
r_have_again    | LOAD of prod                            | raw_get_data_ready, rd.prod
r_take          | COPY out of the ring, STORE of cons     | do_recv, rd.cons
r_test          | RMW and, bit 2                          | send_notify, *_notify
r_raise         | NOTIFY                                  | send_notify, xenevtchn_notify
r_raise_fails   | NOTIFY whose result is not 0            | do_recv
r_live          | LOAD of the peer's live byte            | libxenvchan_is_open, *_live
r_final         | hidden: libxenvchan has no such step; where the ring is empty nothing tells
                |   whether it was made, and where it is not, its absence is L1
o_live          | LOAD of the peer's live byte            | libxenvchan_is_open, *_live
wait            | PENDING_EXIT                            | libxenvchan_wait
unmask          | UNMASK                                  | libxenvchan_wait
interrupted     | PENDING_EXIT whose result is -1         | libxenvchan_wait
c_close         | STORE of the own live byte              | libxenvchan_close, *_live
c_give_back     | UNSHARE_PAGE or UNMAP_PAGE: the kernel clears the byte, raises the event
c_raise         | NOTIFY                                  | libxenvchan_close
deliver         | hidden: the kernel's handler of the event channel
spurious        | hidden: a wake-up from nowhere, which the event channel allows; counted, and
                |   taken only where no recorded event explains a wake-up
dies            | hidden: nobody is left to write a record
domain_dies     | hidden: nobody is left to write a record
***********************************************************************************)
EXTENDS Integers, Stream

CONSTANTS
    Threads, SideOf(_),     \* threads, and the side of each; a side's first is named as the side
    LeftBytes, RightBytes,  \* sizes of the rings
    IndexSpan,              \* the indices count modulo this: 2^32
    FirstLeft, FirstRight,  \* the indices of each ring at the start
    Connected,              \* at the start the channel is open at both ends
    Blocking(_),            \* what a side's application has set `blocking` to: {TRUE}, {FALSE}, both
    Unset,                  \* the sides whose application has not set it
    Environment,            \* which of spurious, dies, domain_dies, interrupted, notify_fails there are
    SpuriousMax,            \* as many spurious wake-ups
    L1, L2, L3, L4, L5, L6, L7, L8, L9,
    Choice(_, _)            \* what an application asks for: Choice(t, "write") is a set of sizes, and
                            \* so for send, read, recv; {0} or {} for calls without a size

Sides == {"client", "server"}
Directions == {"left", "right"}

ASSUME /\ LeftBytes \in Nat \ {0} /\ RightBytes \in Nat \ {0}
       /\ IndexSpan % LeftBytes = 0 /\ IndexSpan % RightBytes = 0
       /\ IndexSpan > LeftBytes /\ IndexSpan > RightBytes
ASSUME FirstLeft \in 0..IndexSpan - 1 /\ FirstRight \in 0..IndexSpan - 1
ASSUME Sides \subseteq Threads /\ \A t \in Threads : SideOf(t) \in Sides
ASSUME \A s \in Sides : SideOf(s) = s /\ Blocking(s) \subseteq BOOLEAN
ASSUME Connected \in BOOLEAN /\ Unset \subseteq Sides /\ SpuriousMax \in Nat
ASSUME {L1, L2, L3, L4, L5, L6, L7, L8, L9} \subseteq BOOLEAN

Peer(s) == IF s = "client" THEN "server" ELSE "client"
Writes(s) == IF s = "client" THEN "left" ELSE "right"
Reads(s) == Writes(Peer(s))
Other(t) == Peer(SideOf(t))
Out(t) == Writes(SideOf(t))
In(t) == Reads(SideOf(t))
RingSize(d) == IF d = "left" THEN LeftBytes ELSE RightBytes
First(d) == IF d = "left" THEN FirstLeft ELSE FirstRight
Min(a, b) == IF a < b THEN a ELSE b

(* Bits of a notify byte. *)
TellOfWrites == 1
TellOfReads == 2
Has(byte, bit) == (byte \div bit) % 2 = 1
With(byte, bit) == IF Has(byte, bit) THEN byte ELSE byte + bit
Without(byte, bit) == IF Has(byte, bit) THEN byte - bit ELSE byte

(* An event channel port. Raised is a set, as what stands for several ports at once may become any
   of several.                                                                                    *)
PortIdle == [pending |-> FALSE, masked |-> FALSE, queued |-> 0]
PortRaised(p) == {[p EXCEPT !.pending = TRUE]}
PortDeliverable(p) == p.pending /\ ~p.masked
PortDelivered(p) == [pending |-> FALSE, masked |-> TRUE, queued |-> p.queued + 1]
PortReady(p) == p.queued > 0
PortTaken(p) == [p EXCEPT !.queued = p.queued - 1]
PortUnmasked(p) == [p EXCEPT !.masked = FALSE]
PortWakeUps(p) == p.queued + IF p.pending THEN 1 ELSE 0

VARIABLES
    prod, cons,   \* indices of each direction
    ring,         \* its bytes from cons to prod
    notify,       \* notify[s] is the byte that s tests: cli_notify, srv_notify
    live,         \* 2 for a client that has not connected yet, 1, 0
    port,         \* each side's event channel port
    keys,         \* the channel's keys are in xenstore
    hold,         \* a side's hold on the shared page: "none", "held", "closing", "back"
    fate,         \* "alive"; "killed": the process has died; "lost": its domain has
    awakened,     \* spurious wake-ups until now
    at,           \* each thread's next step; "app" between calls, "gone" behind close
    doing,        \* the call that it is in (L7: or was in last)
    blocks,       \* whether this call blocks
    todo,         \* what this write has still to put
    want,         \* what this read asks for
    seen,         \* free bytes or bytes in the ring as last read; behind a put what was put
    result,       \* what this call has moved, or will return
    ended,        \* this read has found the end of the stream
    Sent, Got,    \* of each direction: all that was put or is to be; all that was taken
    told          \* of each direction: a read has reported the end

indices == <<prod, cons, ring>>
page == <<prod, cons, ring, notify, live>>
world == <<keys, hold, fate, awakened>>
call == <<doing, blocks, todo, want, seen, result, ended>>
streams == <<Sent, Got, told>>
vars == <<prod, cons, ring, notify, live, port, keys, hold, fate, awakened, at, doing, blocks,
          todo, want, seen, result, ended, Sent, Got, told>>

Init ==
    /\ prod = [d \in Directions |-> First(d)]
    /\ cons = [d \in Directions |-> First(d)]
    /\ ring = [d \in Directions |-> NoBytes]
    /\ notify = [s \in Sides |-> IF s = "client" \/ Connected THEN TellOfWrites ELSE 0]
    /\ live = [s \in Sides |-> IF s = "client" /\ ~Connected THEN 2 ELSE 1]
    /\ IF Connected
       THEN \E c \in PortRaised(PortIdle), s \in PortRaised(PortIdle) :
               port = [side \in Sides |-> IF side = "client" THEN c ELSE s]
       ELSE port = [s \in Sides |-> PortIdle]
    /\ keys = Connected
    /\ hold = [s \in Sides |-> IF Connected THEN "held" ELSE "none"]
    /\ fate = [s \in Sides |-> "alive"]
    /\ awakened = 0
    /\ at = [t \in Threads |-> IF Connected THEN "app" ELSE
                               CASE t = "server" -> "i_bind"
                                 [] t = "client" -> "k_keys"
                                 [] OTHER -> "app"]
    /\ doing = [t \in Threads |-> "none"]
    /\ blocks = [t \in Threads |-> FALSE]
    /\ todo = [t \in Threads |-> NoBytes]
    /\ want = [t \in Threads |-> 0]
    /\ seen = [t \in Threads |-> 0]
    /\ result = [t \in Threads |-> 0]
    /\ ended = [t \in Threads |-> FALSE]
    /\ Sent = [d \in Directions |-> NoBytes]
    /\ Got = [d \in Directions |-> NoBytes]
    /\ told = [d \in Directions |-> FALSE]

(* The thread's next step is this one. *)
At(t, step) == at[t] = step /\ fate[SideOf(t)] = "alive"
Goto(t, step) == at' = [at EXCEPT ![t] = step]
Set(variable, t, value) == [variable EXCEPT ![t] = value]
Raise(s) == \E p \in PortRaised(port[s]) : port' = [port EXCEPT ![s] = p]

(* What a thread sees of the two indices of a direction. *)
Held(d) == (prod[d] - cons[d]) % IndexSpan
Free(d) == RingSize(d) - Held(d)

-----------------------------------------------------------------------------------
(* OPENING: libxenvchan_server_init, libxenvchan_client_init *)

i_bind(t) ==
    /\ At(t, "i_bind")
    /\ Goto(t, "i_share")
    /\ UNCHANGED <<page, port, world, call, streams>>

i_share(t) ==
    /\ At(t, "i_share")
    /\ hold' = Set(hold, "server", "held")
    /\ Goto(t, "i_publish")
    /\ UNCHANGED <<page, port, keys, fate, awakened, call, streams>>

(* Both keys in one transaction: who finds one of them finds the other one. *)
i_publish(t) ==
    /\ At(t, "i_publish")
    /\ keys' = TRUE
    /\ Goto(t, "app")
    /\ UNCHANGED <<page, port, hold, fate, awakened, call, streams>>

k_keys(t) ==
    /\ At(t, "k_keys")
    /\ keys
    /\ Goto(t, "k_bind")
    /\ UNCHANGED <<page, port, world, call, streams>>

(* Xen cannot tell whether an event was lost before: it makes the new port pending. *)
k_bind(t) ==
    /\ At(t, "k_bind")
    /\ \E p \in PortRaised(PortIdle) : port' = Set(port, "client", p)
    /\ Goto(t, "k_unmask")
    /\ UNCHANGED <<page, world, call, streams>>

(* If that event is in the queue already, another one can come behind it: both are there. *)
k_unmask(t) ==
    /\ At(t, "k_unmask")
    /\ port' = Set(port, "client", PortUnmasked(port["client"]))
    /\ Goto(t, "k_map")
    /\ UNCHANGED <<page, world, call, streams>>

k_map(t) ==
    /\ At(t, "k_map")
    /\ hold' = Set(hold, "client", "held")
    /\ Goto(t, "k_live")
    /\ UNCHANGED <<page, port, keys, fate, awakened, call, streams>>

k_live(t) ==
    /\ At(t, "k_live")
    /\ live' = Set(live, "client", 1)
    /\ Goto(t, "k_notify")
    /\ UNCHANGED <<indices, notify, port, world, call, streams>>

k_notify(t) ==
    /\ At(t, "k_notify")
    /\ notify' = Set(notify, "server", TellOfWrites)
    /\ Goto(t, "k_raise")
    /\ UNCHANGED <<indices, live, port, world, call, streams>>

k_raise(t) ==
    /\ At(t, "k_raise")
    /\ Raise("server")
    /\ Goto(t, "app")
    /\ UNCHANGED <<page, world, call, streams>>

-----------------------------------------------------------------------------------
(* CALLS: what an application asks for *)

MayCall(t) == At(t, "app") /\ hold[SideOf(t)] = "held"

(* `blocking` as the call finds it. *)
Blocks(t) ==
    IF SideOf(t) \notin Unset THEN Blocking(SideOf(t)) ELSE IF L3 THEN BOOLEAN ELSE {FALSE}

(* The question whether the peer is there, or, without it, what comes after. *)
Asks(t, question, after) == IF L5 /\ SideOf(t) = "server" THEN {question, after} ELSE {question}

Enter(t, name) == doing' = Set(doing, t, name)

HandIn(t, name) ==
    /\ \E n \in Choice(t, name) :
         /\ todo' = Set(todo, t, Bytes(Len(Sent[Out(t)]), n))
         /\ Sent' = Set(Sent, Out(t), Append(Sent[Out(t)], Bytes(Len(Sent[Out(t)]), n)))
    /\ \E b \in Blocks(t) : blocks' = Set(blocks, t, b)
    /\ Enter(t, name)
    /\ \E step \in Asks(t, "w_live", "w_space") : Goto(t, step)
    /\ UNCHANGED <<page, port, world, want, seen, result, ended, Got, told>>

call_write(t) ==
    /\ MayCall(t)
    /\ HandIn(t, "write")

call_send(t) ==
    /\ MayCall(t)
    /\ HandIn(t, "send")

AskFor(t, name) ==
    /\ \E n \in Choice(t, name) : want' = Set(want, t, n)
    /\ \E b \in Blocks(t) : blocks' = Set(blocks, t, b)
    /\ Enter(t, name)
    /\ Goto(t, "r_have")
    /\ UNCHANGED <<page, port, world, todo, seen, result, ended, streams>>

call_read(t) ==
    /\ MayCall(t)
    /\ AskFor(t, "read")

call_recv(t) ==
    /\ MayCall(t)
    /\ AskFor(t, "recv")

Plainly(t, name, step) ==
    /\ Choice(t, name) # {}
    /\ Enter(t, name)
    /\ Goto(t, step)
    /\ UNCHANGED <<page, port, world, blocks, todo, want, seen, result, ended, streams>>

call_wait(t) ==
    /\ MayCall(t)
    /\ Plainly(t, "wait", "wait")

call_data_ready(t) ==
    /\ MayCall(t)
    /\ Plainly(t, "data_ready", "r_arm")

call_buffer_space(t) ==
    /\ MayCall(t)
    /\ Plainly(t, "buffer_space", "w_arm")

call_is_open(t) ==
    /\ MayCall(t)
    /\ Choice(t, "is_open") # {}
    /\ Enter(t, "is_open")
    /\ \E step \in Asks(t, "o_live", "return") :
         /\ Goto(t, step)
         /\ result' = Set(result, t, IF step = "return" THEN 1 ELSE 0)
    /\ UNCHANGED <<page, port, world, blocks, todo, want, seen, ended, streams>>

call_close(t) ==
    /\ MayCall(t)
    /\ \A other \in Threads : SideOf(other) = SideOf(t) => At(other, "app")
    /\ L7 => doing[t] = "wait"
    /\ Plainly(t, "close", "c_close")

(* What was not taken of a write was not handed in. *)
return(t) ==
    /\ At(t, "return")
    /\ Sent' = Set(Sent, Out(t), Take(Sent[Out(t)], Len(Sent[Out(t)]) - Len(todo[t])))
    /\ told' = Set(told, In(t), told[In(t)] \/ ended[t])
    /\ doing' = IF L7 THEN doing ELSE Set(doing, t, "none")
    /\ blocks' = Set(blocks, t, FALSE)
    /\ todo' = Set(todo, t, NoBytes)
    /\ want' = Set(want, t, 0)
    /\ seen' = Set(seen, t, 0)
    /\ result' = Set(result, t, 0)
    /\ ended' = Set(ended, t, FALSE)
    /\ Goto(t, IF doing[t] = "close" THEN "gone" ELSE "app")
    /\ UNCHANGED <<page, port, world, Got>>

-----------------------------------------------------------------------------------
(* WRITING: libxenvchan_write, libxenvchan_send, libxenvchan_buffer_space *)

(* A packet that can never fit. *)
TooLarge(t) ==
    \/ doing[t] = "send" /\ Len(todo[t]) > RingSize(Out(t))
    \/ doing[t] = "recv" /\ want[t] > RingSize(In(t))

Fail(t) ==
    /\ result' = Set(result, t, -1)
    /\ Goto(t, "return")

AskedInWrite(t) ==
    /\ IF live[Other(t)] # 0
       THEN Goto(t, "w_space") /\ UNCHANGED result
       ELSE Fail(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, ended, streams>>

w_live(t) ==
    /\ At(t, "w_live")
    /\ AskedInWrite(t)

w_live_again(t) ==
    /\ At(t, "w_live_again")
    /\ AskedInWrite(t)

w_space(t) ==
    /\ At(t, "w_space")
    /\ seen' = Set(seen, t, Free(Out(t)))
    /\ Goto(t, IF Free(Out(t)) < Len(todo[t]) THEN "w_arm"
               ELSE IF doing[t] = "write" /\ Len(todo[t]) = 0 THEN "return" ELSE "w_put")
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, result, ended, streams>>

w_arm(t) ==
    /\ At(t, "w_arm")
    /\ notify' = Set(notify, Other(t), With(notify[Other(t)], TellOfReads))
    /\ Goto(t, "w_space_again")
    /\ UNCHANGED <<indices, live, port, world, call, streams>>

(* Enough room to put something; a packet goes in whole. *)
Room(t, free) == IF doing[t] = "send" THEN free >= Len(todo[t]) ELSE free > 0

w_space_again(t) ==
    /\ At(t, "w_space_again")
    /\ seen' = Set(seen, t, Free(Out(t)))
    /\ CASE doing[t] = "buffer_space" ->
              result' = Set(result, t, Free(Out(t))) /\ Goto(t, "return")
         [] doing[t] # "buffer_space" /\ Room(t, Free(Out(t))) ->
              Goto(t, "w_put") /\ UNCHANGED result
         [] doing[t] # "buffer_space" /\ ~Room(t, Free(Out(t))) /\ ~blocks[t] ->
              Goto(t, "return") /\ UNCHANGED result
         [] doing[t] # "buffer_space" /\ ~Room(t, Free(Out(t))) /\ blocks[t] ->
              IF TooLarge(t) THEN Fail(t) ELSE Goto(t, "wait") /\ UNCHANGED result
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, ended, streams>>

w_put(t) ==
    /\ At(t, "w_put")
    /\ LET n == Min(seen[t], Len(todo[t])) IN
         /\ ring' = Set(ring, Out(t), Append(ring[Out(t)], Take(todo[t], n)))
         /\ prod' = Set(prod, Out(t), (prod[Out(t)] + n) % IndexSpan)
         /\ todo' = Set(todo, t, Drop(todo[t], n))
         /\ result' = Set(result, t, result[t] + n)
         /\ seen' = Set(seen, t, IF L2 THEN n ELSE 0)
    /\ Goto(t, "w_test")
    /\ UNCHANGED <<cons, notify, live, port, world, doing, blocks, want, ended, streams>>

(* Behind a put: a blocking write waits until all is put. *)
Put(t) == IF doing[t] = "write" /\ blocks[t] /\ Len(todo[t]) > 0 THEN "wait" ELSE "return"

w_test(t) ==
    /\ At(t, "w_test")
    /\ notify' = Set(notify, SideOf(t), Without(notify[SideOf(t)], TellOfWrites))
    /\ Goto(t, IF Has(notify[SideOf(t)], TellOfWrites) THEN "w_raise" ELSE Put(t))
    /\ UNCHANGED <<indices, live, port, world, call, streams>>

w_raise(t) ==
    /\ At(t, "w_raise")
    /\ Raise(Other(t))
    /\ Goto(t, Put(t))
    /\ UNCHANGED <<page, world, call, streams>>

(* What was put stays put: the call returns it. L2 counts -1 for it, one byte before what was put
   comes again with it; L4 returns -1.                                                           *)
w_raise_fails(t) ==
    /\ "notify_fails" \in Environment
    /\ At(t, "w_raise")
    /\ \/ Goto(t, "return") /\ UNCHANGED <<todo, seen, result>>
       \/ L4 /\ ~(doing[t] = "write" /\ blocks[t]) /\ Fail(t) /\ UNCHANGED <<todo, seen>>
       \/ /\ L2 /\ doing[t] = "write" /\ blocks[t]
          /\ LET again == seen[t] + 1 IN
               /\ todo' = Set(todo, t, Bytes(Len(Sent[Out(t)]) - Len(todo[t]) - again,
                                             Len(todo[t]) + again))
               /\ result' = Set(result, t, result[t] - again)
          /\ Goto(t, "wait") /\ UNCHANGED seen
    /\ UNCHANGED <<page, port, world, doing, blocks, want, ended, streams>>

-----------------------------------------------------------------------------------
(* READING: libxenvchan_read, libxenvchan_recv, libxenvchan_data_ready *)

r_have(t) ==
    /\ At(t, "r_have")
    /\ seen' = Set(seen, t, Held(In(t)))
    /\ Goto(t, IF Held(In(t)) < want[t] THEN "r_arm"
               ELSE IF doing[t] = "read" /\ Held(In(t)) = 0 THEN "r_live" ELSE "r_take")
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, result, ended, streams>>

r_arm(t) ==
    /\ At(t, "r_arm")
    /\ notify' = Set(notify, Other(t), With(notify[Other(t)], TellOfWrites))
    /\ Goto(t, "r_have_again")
    /\ UNCHANGED <<indices, live, port, world, call, streams>>

(* Enough to take something; a packet comes out whole. *)
Enough(t, held) == IF doing[t] = "recv" THEN held >= want[t] ELSE held > 0

(* Nothing to be had, and the peer is there. *)
GoOnEmpty(t) ==
    /\ Goto(t, IF blocks[t] /\ ~TooLarge(t) THEN "wait" ELSE "return")
    /\ result' = Set(result, t, IF blocks[t] /\ TooLarge(t) THEN -1 ELSE 0)

r_have_again(t) ==
    /\ At(t, "r_have_again")
    /\ seen' = Set(seen, t, Held(In(t)))
    /\ CASE doing[t] = "data_ready" ->
              result' = Set(result, t, Held(In(t))) /\ Goto(t, "return")
         [] doing[t] # "data_ready" /\ Enough(t, Held(In(t))) ->
              Goto(t, "r_take") /\ UNCHANGED result
         [] doing[t] # "data_ready" /\ ~Enough(t, Held(In(t))) ->
              \/ Goto(t, "r_live") /\ UNCHANGED result
              \/ L5 /\ SideOf(t) = "server" /\ GoOnEmpty(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, ended, streams>>

r_take(t) ==
    /\ At(t, "r_take")
    /\ LET n == Min(seen[t], want[t]) IN
         /\ Got' = Set(Got, In(t), Append(Got[In(t)], Take(ring[In(t)], n)))
         /\ ring' = Set(ring, In(t), Drop(ring[In(t)], n))
         /\ cons' = Set(cons, In(t), (cons[In(t)] + n) % IndexSpan)
         /\ result' = Set(result, t, n)
    /\ seen' = Set(seen, t, 0)
    /\ Goto(t, "r_test")
    /\ UNCHANGED <<prod, notify, live, port, world, doing, blocks, todo, want, ended, Sent, told>>

r_test(t) ==
    /\ At(t, "r_test")
    /\ notify' = Set(notify, SideOf(t), Without(notify[SideOf(t)], TellOfReads))
    /\ Goto(t, IF Has(notify[SideOf(t)], TellOfReads) THEN "r_raise" ELSE "return")
    /\ UNCHANGED <<indices, live, port, world, call, streams>>

r_raise(t) ==
    /\ At(t, "r_raise")
    /\ Raise(Other(t))
    /\ Goto(t, "return")
    /\ UNCHANGED <<page, world, call, streams>>

r_raise_fails(t) ==
    /\ "notify_fails" \in Environment
    /\ At(t, "r_raise")
    /\ \/ Goto(t, "return") /\ UNCHANGED result
       \/ L4 /\ Fail(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, ended, streams>>

End(t) ==
    /\ ended' = Set(ended, t, TRUE)
    /\ Fail(t)

r_live(t) ==
    /\ At(t, "r_live")
    /\ IF live[Other(t)] # 0
       THEN GoOnEmpty(t) /\ UNCHANGED ended
       ELSE \/ Goto(t, "r_final") /\ UNCHANGED <<result, ended>>
            \/ L1 /\ End(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, streams>>

r_final(t) ==
    /\ At(t, "r_final")
    /\ IF Enough(t, Held(In(t)))
       THEN Goto(t, "r_have") /\ UNCHANGED <<result, ended>>
       ELSE End(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, streams>>

-----------------------------------------------------------------------------------
(* WAITING, ASKING AND CLOSING: libxenvchan_wait, libxenvchan_is_open, libxenvchan_close *)

o_live(t) ==
    /\ At(t, "o_live")
    /\ result' = Set(result, t, live[Other(t)])
    /\ Goto(t, "return")
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, ended, streams>>

wait(t) ==
    /\ At(t, "wait")
    /\ PortReady(port[SideOf(t)])
    /\ port' = Set(port, SideOf(t), PortTaken(port[SideOf(t)]))
    /\ Goto(t, "unmask")
    /\ UNCHANGED <<page, world, call, streams>>

(* Where a call goes on when its wait is over. *)
Awake(t) ==
    CASE doing[t] = "write" -> Asks(t, "w_live_again", "w_space")
      [] doing[t] = "send" -> Asks(t, "w_live", "w_space")
      [] doing[t] \in {"read", "recv"} -> {"r_have"}
      [] doing[t] = "wait" -> {"return"}

unmask(t) ==
    /\ At(t, "unmask")
    /\ port' = Set(port, SideOf(t), PortUnmasked(port[SideOf(t)]))
    /\ \E step \in Awake(t) : Goto(t, step)
    /\ UNCHANGED <<page, world, call, streams>>

(* Without L8 a signal lets the wait go on: nothing happens. *)
interrupted(t) ==
    /\ "interrupted" \in Environment /\ L8
    /\ At(t, "wait")
    /\ Fail(t)
    /\ UNCHANGED <<page, port, world, doing, blocks, todo, want, seen, ended, streams>>

c_close(t) ==
    /\ At(t, "c_close")
    /\ live' = Set(live, SideOf(t), 0)
    /\ hold' = Set(hold, SideOf(t), "closing")
    /\ Goto(t, "c_give_back")
    /\ UNCHANGED <<indices, notify, port, keys, fate, awakened, call, streams>>

c_give_back(t) ==
    /\ At(t, "c_give_back")
    /\ hold' = Set(hold, SideOf(t), "back")
    /\ Raise(Other(t))
    /\ Goto(t, IF L6 THEN "c_raise" ELSE "return")
    /\ UNCHANGED <<page, keys, fate, awakened, call, streams>>

c_raise(t) ==
    /\ At(t, "c_raise")
    /\ Raise(Other(t))
    /\ Goto(t, "return")
    /\ UNCHANGED <<page, world, call, streams>>

-----------------------------------------------------------------------------------
(* THE REST OF THE WORLD *)

(* A side whose port is bound, and that may still wait. *)
Attached(s) == at[s] \notin {"i_bind", "k_keys", "k_bind", "gone"} /\ fate[s] = "alive"

deliver(s) ==
    /\ Attached(s)
    /\ PortDeliverable(port[s])
    /\ port' = Set(port, s, PortDelivered(port[s]))
    /\ UNCHANGED <<page, world, at, call, streams>>

spurious(s) ==
    /\ "spurious" \in Environment
    /\ Attached(s)
    /\ awakened < SpuriousMax
    /\ awakened' = awakened + 1
    /\ Raise(s)
    /\ UNCHANGED <<page, keys, hold, fate, at, call, streams>>

(* Who has no hold on the page leaves it as it is: nobody is told. *)
CleanedUp(s) ==
    IF hold[s] \in {"held", "closing"}
    THEN live' = Set(live, s, 0) /\ Raise(Peer(s))
    ELSE UNCHANGED <<live, port>>

dies(s) ==
    /\ "dies" \in Environment
    /\ fate[s] = "alive" /\ hold[s] # "back"
    /\ fate' = Set(fate, s, "killed")
    /\ CleanedUp(s)
    /\ UNCHANGED <<indices, notify, keys, hold, awakened, at, call, streams>>

domain_dies(s) ==
    /\ "domain_dies" \in Environment
    /\ fate[s] = "alive" /\ hold[s] # "back"
    /\ fate' = Set(fate, s, "lost")
    /\ \/ CleanedUp(s)
       \/ L9 /\ UNCHANGED <<live, port>>
    /\ UNCHANGED <<indices, notify, keys, hold, awakened, at, call, streams>>

-----------------------------------------------------------------------------------

(* The library's own steps: those that it makes once it was called. *)
Library(t) ==
    \/ i_bind(t) \/ i_share(t) \/ i_publish(t)
    \/ k_keys(t) \/ k_bind(t) \/ k_unmask(t) \/ k_map(t) \/ k_live(t) \/ k_notify(t) \/ k_raise(t)
    \/ w_live(t) \/ w_space(t) \/ w_arm(t) \/ w_space_again(t) \/ w_put(t) \/ w_test(t)
    \/ w_raise(t) \/ w_live_again(t)
    \/ r_have(t) \/ r_arm(t) \/ r_have_again(t) \/ r_take(t) \/ r_test(t) \/ r_raise(t)
    \/ r_live(t) \/ r_final(t)
    \/ o_live(t) \/ unmask(t) \/ c_close(t) \/ c_give_back(t) \/ c_raise(t) \/ return(t)

Application(t) ==
    \/ call_write(t) \/ call_send(t) \/ call_read(t) \/ call_recv(t) \/ call_wait(t)
    \/ call_data_ready(t) \/ call_buffer_space(t) \/ call_is_open(t) \/ call_close(t)

Next ==
    \/ \E t \in Threads :
         \/ Library(t) \/ Application(t) \/ wait(t)
         \/ w_raise_fails(t) \/ r_raise_fails(t) \/ interrupted(t)
    \/ \E s \in Sides : deliver(s) \/ spurious(s) \/ dies(s) \/ domain_dies(s)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------------
(* SAFETY *)

Steps ==
    {"i_bind", "i_share", "i_publish", "k_keys", "k_bind", "k_unmask", "k_map", "k_live", "k_notify",
     "k_raise", "app", "w_live", "w_space", "w_arm", "w_space_again", "w_put", "w_test", "w_raise",
     "w_live_again", "r_have", "r_arm", "r_have_again", "r_take", "r_test", "r_raise", "r_live",
     "r_final", "o_live", "wait", "unmask", "c_close", "c_give_back", "c_raise", "return", "gone"}

TypeOK ==
    /\ \A d \in Directions : prod[d] \in 0..IndexSpan - 1 /\ cons[d] \in 0..IndexSpan - 1
    /\ \A s \in Sides : notify[s] \in 0..3 /\ live[s] \in 0..2
    /\ \A s \in Sides : hold[s] \in {"none", "held", "closing", "back"}
    /\ \A s \in Sides : fate[s] \in {"alive", "killed", "lost"}
    /\ awakened \in 0..SpuriousMax
    /\ \A t \in Threads : at[t] \in Steps /\ blocks[t] \in BOOLEAN /\ ended[t] \in BOOLEAN
    /\ \A t \in Threads : want[t] \in Nat /\ seen[t] \in Nat /\ result[t] \in Int

(* The indices say how many bytes the ring holds, and never more than fit. *)
IndicesOK == \A d \in Directions : Held(d) = Len(ring[d]) /\ Len(ring[d]) <= RingSize(d)

(* What comes out is what was put in: nothing lost, doubled or moved. *)
Integrity == \A d \in Directions : IsPrefix(Got[d], Sent[d])

(* The end is reported only of a stream that has ended, and of which nothing is left to be taken. *)
EndIsTheEnd ==
    \A t \in Threads : ended[t] => live[Other(t)] = 0 /\ ~Enough(t, Len(ring[In(t)]))

(* A call fails only when the peer is gone, or when it asks for a packet that cannot be. *)
FailsForAReason ==
    \A t \in Threads : At(t, "return") /\ result[t] = -1 => live[Other(t)] = 0 \/ TooLarge(t)

(* Who has not set `blocking` is not kept waiting. *)
WaitsOnlyIfAsked ==
    \A t \in Threads : SideOf(t) \in Unset /\ At(t, "wait") => doing[t] = "wait"

(* Blocked, with no wake-up that can come. *)
Asleep(t) ==
    /\ At(t, "wait")
    /\ ~PortReady(port[SideOf(t)]) /\ ~PortDeliverable(port[SideOf(t)])

(* No thread has a step of the library to take. *)
NothingMoves ==
    \A t \in Threads : Asleep(t) \/ at[t] \in {"app", "gone"} \/ fate[SideOf(t)] # "alive"

(* Nothing of what a sleeping call waits for is there. *)
MaySleep(t) ==
    /\ live[Other(t)] # 0
    /\ CASE doing[t] \in {"write", "send"} -> ~Room(t, Free(Out(t)))
         [] doing[t] \in {"read", "recv"} -> ~Enough(t, Held(In(t)))

NoDeadlock == NothingMoves => \A t \in Threads : Asleep(t) /\ doing[t] # "wait" => MaySleep(t)

Stands(t, names) == Asleep(t) /\ doing[t] \in names

(* The two of one direction do not wait for each other. Packets can: a send waits for room for all of
   it, a recv for all that it asks for.                                                            *)
NoStandoff ==
    \A t, u \in Threads : SideOf(t) # SideOf(u) =>
      ~(Stands(t, {"write", "send"}) /\ Stands(u, {"read", "recv"}) /\ Len(ring[Out(t)]) > 0)

(* Not promised either: both write, neither reads. *)
NoMutualWrites ==
    \A t, u \in Threads : SideOf(t) # SideOf(u) =>
      ~(Stands(t, {"write", "send"}) /\ Stands(u, {"write", "send"}))

(* Not promised, and what an application hopes for that waits by itself (libxenvchan_wait, poll):
   that it is not left asleep beside something to read. A call of its own may have taken the event
   for it, and it has not looked again.                                                         *)
NoWaitInVain ==
    NothingMoves => \A t \in Threads :
      Asleep(t) /\ doing[t] = "wait" => live[Other(t)] # 0 /\ Len(ring[In(t)]) = 0

-----------------------------------------------------------------------------------
(* FAIRNESS. A thread has one step of the library at a time, which stays possible until it is taken:
   fairness of all of them together is that of each.                                             *)

LibraryIsFair == \A t \in Threads : WF_vars(Library(t))

(* The kernel delivers what is pending, and who waits for a port in the queue is woken. *)
EventChannelIsFair ==
    /\ \A s \in Sides : WF_vars(deliver(s))
    /\ \A t \in Threads : WF_vars(wait(t))

(* An application reads as long as there is something to read or an end to be told. Strong fairness,
   because its thread may be in other calls in between.                                           *)
ReadIsDue(t) == ~told[In(t)] /\ (Len(ring[In(t)]) > 0 \/ live[Other(t)] = 0)
read_due(t) == ReadIsDue(t) /\ (call_read(t) \/ call_recv(t))

ApplicationReads(t) == SF_vars(read_due(t))

Fairness == LibraryIsFair /\ EventChannelIsFair /\ \A t \in Threads : ApplicationReads(t)

FairSpec == Spec /\ Fairness

-----------------------------------------------------------------------------------
(* What is still owed in a state in which nothing moves, by direction. *)

Writer(d) == IF d = "left" THEN "client" ELSE "server"
Reader(d) == Peer(Writer(d))

CutOff(d) == IF fate[Writer(d)] # "alive" THEN Len(todo[Writer(d)]) ELSE 0

BytesOwed(d) ==
    /\ live[Reader(d)] # 0 /\ fate[Reader(d)] = "alive"
    /\ Len(Sent[d]) - CutOff(d) > Len(Got[d])
WriteOwed(d) == \E t \in Threads :
    At(t, "wait") /\ SideOf(t) = Writer(d) /\ doing[t] \in {"write", "send"}
ReadOwed(d) == \E t \in Threads :
    /\ At(t, "wait") /\ SideOf(t) = Reader(d) /\ doing[t] \in {"read", "recv"}
    /\ Len(ring[d]) > 0 \/ live[Writer(d)] = 0
EndOwed(d) == live[Writer(d)] = 0 /\ live[Reader(d)] # 0 /\ ~told[d]
(* To the side s: a call of it waits, and the other domain is gone. *)
DeathOwed(s) == fate[Peer(s)] = "lost" /\ \E t \in Threads : At(t, "wait") /\ SideOf(t) = s
===================================================================================
