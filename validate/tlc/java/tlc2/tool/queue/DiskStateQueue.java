package tlc2.tool.queue;

import java.util.ArrayDeque;
import tlc2.tool.TLCState;

/**
 * Depth first in the place of TLC's own breadth-first queue of this name.
 *
 * <p>Along a trace the search is deep and narrow. Breadth first has to finish a whole front before
 * a single interleaving gets to the end, so that a bound on states leaves nothing known; depth first
 * has usually found one by then. TLC's queue writes its states to disk from the 32,767th on; this
 * stack stays in memory, where its depth is the trace's length at most times the few alternatives
 * that a step has, and TLC's heap is its bound.
 */
public class DiskStateQueue extends StateQueue {
  private final ArrayDeque<TLCState> stack = new ArrayDeque<>();

  public DiskStateQueue(final String folder) {
    super();
  }

  @Override
  final void enqueueInner(final TLCState state) {
    stack.push(state);
  }

  @Override
  final TLCState dequeueInner() {
    return stack.pop();
  }

  @Override
  final TLCState peekInner() {
    return stack.peek();
  }

  @Override
  public final void beginChkpt() {
    throw new UnsupportedOperationException("run TLC with -checkpoint 0");
  }

  @Override
  public final void commitChkpt() {
    throw new UnsupportedOperationException("run TLC with -checkpoint 0");
  }

  @Override
  public final void recover() {
    throw new UnsupportedOperationException("a search along a trace is not recovered");
  }
}
