-------------------------------- MODULE MCPolls ---------------------------------
(* Libxenvchan with applications that wait by themselves (libxenvchan_wait, or poll and then wait),
   and only when they have looked into the ring before, found nothing to read, and have not waited
   since. That is how a poll loop works. A blocking write in between can take the event that their
   look asked for: with LooksAgain they look again after each write.                             *)
EXTENDS MCLibxenvchan

CONSTANT LooksAgain

VARIABLE looked    \* the thread has looked and found nothing, and may wait

Looked(t) ==
    IF ~(at[t] = "return" /\ at'[t] # "return") THEN looked[t]
    ELSE CASE doing[t] \in {"read", "recv", "data_ready"} -> result[t] = 0
           [] doing[t] = "wait" -> FALSE
           [] doing[t] \in {"write", "send"} -> looked[t] /\ ~LooksAgain
           [] OTHER -> looked[t]

PollsInit == Init /\ looked = [t \in Threads |-> FALSE]
PollsNext ==
    /\ Next
    /\ \A t \in Threads : at[t] = "app" /\ at'[t] = "wait" => looked[t]
    /\ looked' = [t \in Threads |-> Looked(t)]
PollsSpec == PollsInit /\ [][PollsNext]_<<vars, looked>>
=================================================================================
