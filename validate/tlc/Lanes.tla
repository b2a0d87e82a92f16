----------------------------------- MODULE Lanes -----------------------------------
(* What a trace shows, one lane a side (1 the sender's, 2 the receiver's), and words for
   the reader of TLC's output. The operators are overridden by a Java class; what stands here is
   what they would say of two empty lanes.

   Of many traces in one run the lanes 2n - 1 and 2n are the two of the n-th.

   `done` is a number of steps done, so it names the step that comes next.                        *)
LOCAL INSTANCE Naturals

LanePairs              == 1     \* how many traces there are
LaneLength(lane)       == 0     \* steps in the lane
LaneAction(lane, done) == 0     \* number of the next action; 0 beyond the end
LaneValue(lane, done)  == 1     \* the value that it shows; 1 beyond the end
LaneAfter(lane, done)  == 0     \* steps of the other lane after which the next one may go first
LaneRaises(lane, done) == 0     \* 1 or 2: the next step raises an event on that side's port
LaneNeeds(lane, done)  == 0     \* steps of the other lane that came before the next one
LaneRank(lane, done)   == 0     \* place of the next step in the order of both lanes' times

Reached(sender, receiver) == TRUE   \* note a position; FALSE when the bound on states is met
ReachedBy(number, sender, receiver) == TRUE   \* the same, of one of many
Wanted(sender, receiver)  == FALSE  \* its states are to be shown
Say(word, value)          == TRUE   \* print a line
Numbered(any)             == 1      \* the next number, each time that it is asked for
=====================================================================================
