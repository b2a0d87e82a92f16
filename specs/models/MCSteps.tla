--------------------------------- MODULE MCSteps ---------------------------------
(* Libxenvchan in small models, and what each of its steps leaves behind. None of this is promised to
   anybody; it holds of the library as it is, and hardly a change of one of its steps keeps it.      *)
EXTENDS MCLibxenvchan

CallsAt(step) ==
    CASE step \in {"w_live", "w_space", "w_put", "w_test", "w_raise"} -> {"write", "send"}
      [] step = "w_live_again" -> {"write"}
      [] step \in {"w_arm", "w_space_again"} -> {"write", "send", "buffer_space"}
      [] step \in {"r_have", "r_take", "r_test", "r_raise", "r_live", "r_final"} -> {"read", "recv"}
      [] step \in {"r_arm", "r_have_again"} -> {"read", "recv", "data_ready"}
      [] step = "o_live" -> {"is_open"}
      [] step \in {"wait", "unmask"} -> {"write", "send", "read", "recv", "wait"}
      [] step \in {"c_close", "c_give_back", "c_raise"} -> {"close"}
      [] step = "return" -> {"write", "send", "read", "recv", "wait", "data_ready", "buffer_space",
                             "is_open", "close"}
      [] OTHER -> {"none"} \cup IF L7 THEN {"read", "write", "wait", "close"} ELSE {}

(* Each step is one of the call that its thread is in, and between calls nothing is left of one. *)
StepsOfTheCall ==
    \A t \in Threads :
      /\ doing[t] \in CallsAt(at[t])
      /\ at[t] \in {"app", "gone"} \/ doing[t] = "none" =>
           /\ todo[t] = NoBytes /\ want[t] = 0 /\ seen[t] = 0 /\ result[t] = 0
           /\ ~blocks[t] /\ ~ended[t]

(* A thread in a call can always go on, if it does not wait: for an event, or for the keys. *)
NeverStuck ==
    \A t \in Threads :
      at[t] \notin {"app", "gone", "wait", "k_keys"} /\ fate[SideOf(t)] = "alive"
        => ENABLED Library(t)

(* A question is answered with what was seen. *)
Answers ==
    \A t \in Threads : At(t, "return") =>
      CASE doing[t] \in {"data_ready", "buffer_space"} -> result[t] = seen[t]
        [] doing[t] = "is_open" -> result[t] \in 0..2 /\ (result[t] = 0 => live[Other(t)] = 0)
        [] OTHER -> TRUE

(* A call that blocks waits for as long as it has nothing to show, unless the peer is gone. *)
BlocksIfAsked ==
    \A t \in Threads : At(t, "return") /\ blocks[t] =>
      CASE doing[t] \in {"write", "send"} -> todo[t] = NoBytes \/ live[Other(t)] = 0 \/ TooLarge(t)
        [] doing[t] \in {"read", "recv"} ->
             result[t] > 0 \/ want[t] = 0 \/ live[Other(t)] = 0 \/ TooLarge(t)
        [] OTHER -> TRUE

(* What is opened is opened in its order, and what is given back is no longer live. *)
OpensAndCloses ==
    /\ keys => at["server"] \notin {"i_bind", "i_share", "i_publish"}
    /\ at["client"] \notin {"k_keys", "k_bind", "k_unmask", "k_map"} => keys /\ hold["client"] # "none"
    /\ fate["client"] = "alive" =>
         (live["client"] = 2 <=> at["client"] \in {"k_keys", "k_bind", "k_unmask", "k_map", "k_live"})
    /\ at["client"] \in {"k_keys", "k_bind"} => port["client"].queued = 0
    /\ \A s \in Sides :
         /\ hold[s] \in {"closing", "back"} => live[s] = 0
         /\ hold[s] \in {"none", "held"} /\ fate[s] = "alive" => live[s] # 0
         /\ hold[s] = "back" /\ fate[s] = "alive" => at[s] \in {"c_raise", "return", "gone"}
         /\ port[s].queued \in 0..2
    /\ \A t \in Threads : at[t] = "c_raise" => L6

(* Every byte that was handed in is still to be put, in the ring, or taken. L2 doubles some. *)
Accounted ==
    \A d \in Directions : Len(Sent[d]) = Len(Got[d]) + Len(ring[d]) + Len(todo[Writer(d)])

(* What was seen is used once, and a question has no answer before it was looked. *)
SeenOnce ==
    \A t \in Threads :
      /\ at[t] \in {"w_test", "w_raise", "r_test", "r_raise"} => seen[t] = 0
      /\ at[t] \in {"o_live", "r_have_again", "w_space_again"} /\ doing[t] \notin {"write", "read"}
           => result[t] = 0

(* Who has died does nothing any more, and nobody calls before the channel is open. *)
DeadAndUnborn ==
    /\ \A s \in Sides : fate[s] # "alive" => hold[s] # "back" /\ at[s] # "gone"
    /\ \A t \in Threads : hold[SideOf(t)] = "none" => doing[t] = "none"
    /\ ~L9 => \A s \in Sides : fate[s] # "alive" /\ hold[s] # "none" => live[s] = 0

(* Close is called where no thread of the side is in a call. *)
ClosesAlone ==
    [][\A t, u \in Threads :
         at[t] = "app" /\ at'[t] = "c_close" /\ SideOf(t) = SideOf(u) => at[u] = "app"]_vars

(* The kernel does not put an event into the file of a process that is no more. *)
DeadPortsRest ==
    [][\A s \in Sides : fate[s] # "alive" => port'[s].queued = port[s].queued]_vars

(* Where nobody closes or dies: nothing comes to a port that is not bound. *)
BoundFirst ==
    /\ at["client"] \in {"k_keys", "k_bind"} => port["client"] = PortIdle
    /\ at["server"] = "i_bind" => port["server"] = PortIdle

(* Nothing happens that the environment does not have. *)
EnvironmentAsSaid ==
    /\ awakened > 0 => "spurious" \in Environment
    /\ \A s \in Sides : fate[s] = "killed" => "dies" \in Environment
    /\ \A s \in Sides : fate[s] = "lost" => "domain_dies" \in Environment
    /\ \A t \in Threads : doing[t] # "none" => t \in Allowed(doing[t])

(* With L7 nobody closes who has never waited: it holds where nobody waits, and fails where one does. *)
NeverCloses == \A s \in Sides : live[s] # 0
===================================================================================
