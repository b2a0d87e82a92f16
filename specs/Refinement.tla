-------------------------------- MODULE Refinement --------------------------------
(* Each direction of Libxenvchan is one of Vchan, step by step: Left and Right are Vchan with its
   variables made from those of Libxenvchan. It holds with the deviation switches off, where one
   thread a side makes stream calls (write and read, blocking or not); wait, is_open, data_ready and
   buffer_space may come in between. Packet calls are outside: a send waits for room for all of it,
   and a write takes what there is.

   A side's first thread bears the side's name. While it is in a call of the other direction it is
   away from this one. What of an event channel port Vchan knows is how many wake-ups are to come.  *)
EXTENDS Libxenvchan, TLC

Writing(d) == {"write"}
HereFor(d, s) == IF s = Writer(d) THEN "write" ELSE "read"
Here(d, s) == at[s] \notin {"app", "gone"} /\ doing[s] = HereFor(d, s)

Connecting == at["client"] \in {"k_keys", "k_bind", "k_unmask", "k_map", "k_live", "k_notify"}
DiedWithThePage(s) == fate[s] # "alive" /\ hold[s] \in {"held", "closing"}

Where(d, s) ==
    CASE hold[s] = "back" \/ DiedWithThePage(s) -> "gone"
      [] hold[s] = "closing" /\ ~DiedWithThePage(s) -> "closing"
      [] OTHER ->
           IF s = "client" /\ Connecting
           THEN IF s = Reader(d) THEN "connecting" ELSE "app"
           ELSE IF at[s] \in {"i_bind", "i_share", "i_publish", "k_raise", "app", "c_close"}
                THEN "app"
           ELSE IF Here(d, s) THEN "here" ELSE "away"

SenderAt(d) ==
    LET t == Writer(d) IN
    IF ~Here(d, t) THEN "s_call"
    ELSE CASE at[t] = "w_live" -> "s_live"
           [] at[t] = "w_space" -> "s_space"
           [] at[t] = "w_arm" -> "s_arm"
           [] at[t] = "w_space_again" -> "s_space_again"
           [] at[t] = "w_put" -> "s_put"
           [] at[t] = "w_test" -> "s_test"
           [] at[t] = "w_raise" -> "s_raise"
           [] at[t] = "wait" -> "s_wait"
           [] at[t] \in {"unmask", "w_live_again"} -> "s_live_again"
           [] at[t] = "return" -> "s_return"

ReceiverAt(d) ==
    LET t == Reader(d) IN
    IF ~Here(d, t) THEN "r_call"
    ELSE CASE at[t] \in {"unmask", "r_have"} -> "r_have"
           [] at[t] = "r_arm" -> "r_arm"
           [] at[t] = "r_have_again" -> "r_have_again"
           [] at[t] = "r_take" -> "r_take"
           [] at[t] = "r_test" -> "r_test"
           [] at[t] = "r_raise" -> "r_raise"
           [] at[t] = "r_live" -> "r_live"
           [] at[t] = "r_final" -> "r_final"
           [] at[t] = "wait" -> "r_wait"
           [] at[t] = "return" -> "r_return"

ClosesAt(s, close, raise) ==
    CASE hold[s] \in {"none", "held"} -> close
      [] hold[s] = "closing" -> raise
      [] hold[s] = "back" -> "Done"

ConnectsAt(d) == IF Reader(d) = "server" \/ Connected \/ Connecting THEN "r_connect" ELSE "Done"

(* Vchan's processes, one for each kind of step. *)
Control(d) ==
    ("s" :> SenderAt(d)) @@ ("r" :> ReceiverAt(d)) @@ ("r connects" :> ConnectsAt(d))
    @@ ("s closes" :> ClosesAt(Writer(d), "s_close", "s_close_raise"))
    @@ ("r closes" :> ClosesAt(Reader(d), "r_close", "r_close_raise"))
    @@ ("s dies" :> IF DiedWithThePage(Writer(d)) THEN "Done" ELSE "s_die")
    @@ ("r dies" :> IF DiedWithThePage(Reader(d)) THEN "Done" ELSE "r_die")
    @@ ("s leaves" :> "s_away") @@ ("s comes back" :> "s_back") @@ ("s robbed" :> "s_stolen")
    @@ ("s woken" :> "s_spurious") @@ ("s asks" :> "s_asks")
    @@ ("r leaves" :> "r_away") @@ ("r comes back" :> "r_back") @@ ("r robbed" :> "r_stolen")
    @@ ("r woken" :> "r_spurious") @@ ("r asks" :> "r_asks")

BitOf(byte, bit) == IF Has(byte, bit) THEN 1 ELSE 0
Open(s) == IF live[s] = 0 THEN 0 ELSE 1
InTheCall(d, s, value, otherwise) == IF Here(d, s) THEN value ELSE otherwise
(* After a put Vchan has forgotten the space. *)
Space(d) ==
    LET t == Writer(d) IN
    InTheCall(d, t, IF at[t] \in {"w_test", "w_raise"} THEN 0 ELSE seen[t], 0)

MayNotBlock(s) == s \in Unset \/ FALSE \in Blocking(s)
GivesUpIn(d) ==
    (IF MayNotBlock(Writer(d)) THEN {"s"} ELSE {}) \cup (IF MayNotBlock(Reader(d)) THEN {"r"} ELSE {})
Around ==
    {"s_away", "r_away", "s_spurious", "r_spurious", "s_asks", "r_asks", "s_die", "r_die"}
WakeUpsAtStart == IF Connected THEN 1 ELSE 0
ToldAtStart(d) == IF Reader(d) = "server" \/ Connected THEN 1 ELSE 0

LeftChoice(what) == Choice(IF what = "write" THEN "client" ELSE "server", what)
RightChoice(what) == Choice(IF what = "write" THEN "server" ELSE "client", what)

Left == INSTANCE Vchan WITH
    RingBytes <- LeftBytes, NotifyAtStart <- ToldAtStart("left"), Connects <- FALSE,
    SenderPort <- WakeUpsAtStart, ReceiverPort <- WakeUpsAtStart, WakeUpsMax <- 3,
    Environment <- Around, GivesUp <- GivesUpIn("left"), L1 <- FALSE, Choice <- LeftChoice,
    ring <- ring["left"],
    tellOfWrites <- BitOf(notify["client"], TellOfWrites),
    tellOfReads <- BitOf(notify["server"], TellOfReads),
    senderOpen <- Open("client"), receiverOpen <- Open("server"),
    sPort <- PortWakeUps(port["client"]), rPort <- PortWakeUps(port["server"]),
    sWhere <- Where("left", "client"), rWhere <- Where("left", "server"),
    Sent <- Sent["left"], Got <- Got["left"], pc <- Control("left"),
    todo <- InTheCall("left", "client", todo["client"], NoBytes),
    wrote <- InTheCall("left", "client", result["client"], 0), space <- Space("left"),
    want <- InTheCall("left", "server", want["server"], 0),
    have <- InTheCall("left", "server", seen["server"], 0),
    took <- InTheCall("left", "server", result["server"], 0), rTold <- told["left"]

Right == INSTANCE Vchan WITH
    RingBytes <- RightBytes, NotifyAtStart <- ToldAtStart("right"), Connects <- ~Connected,
    SenderPort <- WakeUpsAtStart, ReceiverPort <- WakeUpsAtStart, WakeUpsMax <- 3,
    Environment <- Around, GivesUp <- GivesUpIn("right"), L1 <- FALSE, Choice <- RightChoice,
    ring <- ring["right"],
    tellOfWrites <- BitOf(notify["server"], TellOfWrites),
    tellOfReads <- BitOf(notify["client"], TellOfReads),
    senderOpen <- Open("server"), receiverOpen <- Open("client"),
    sPort <- PortWakeUps(port["server"]), rPort <- PortWakeUps(port["client"]),
    sWhere <- Where("right", "server"), rWhere <- Where("right", "client"),
    Sent <- Sent["right"], Got <- Got["right"], pc <- Control("right"),
    todo <- InTheCall("right", "server", todo["server"], NoBytes),
    wrote <- InTheCall("right", "server", result["server"], 0), space <- Space("right"),
    want <- InTheCall("right", "client", want["client"], 0),
    have <- InTheCall("right", "client", seen["client"], 0),
    took <- InTheCall("right", "client", result["client"], 0), rTold <- told["right"]

LeftIsVchan == Left!Spec
RightIsVchan == Right!Spec
===================================================================================
