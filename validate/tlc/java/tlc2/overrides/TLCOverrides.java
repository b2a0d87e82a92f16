package tlc2.overrides;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import tlc2.value.impl.BoolValue;
import tlc2.value.impl.IntValue;
import tlc2.value.impl.StringValue;
import tlc2.value.impl.Value;

/**
 * The operators of Lanes.tla. TLC loads the class of this name if there is one.
 *
 * <p>The lanes are int columns, not TLA+ values: a tuple of 100,000 records takes TLC seconds to
 * build and hundreds of megabytes to hold, and looking up a field hashes a string each time.
 *
 * <p>System properties: vchan.lanes names the CSV file (header, then
 * lane,action,value,after,raises,needs,rank; lane 1 is the sender's), vchan.reached the file that gets
 * the maximal positions when TLC ends, vchan.wanted a CSV file of positions (optional), and
 * vchan.states the number of states at which the search stops (0: never). Of many traces in one
 * run vchan.pairs is how many they are, and vchan.counts the file that gets the states of each.
 */
public final class TLCOverrides implements ITLCOverrides {
  private static final int COLUMNS = 6;
  private static final int ACTION = 0;
  private static final int VALUE = 1;
  private static final int AFTER = 2;
  private static final int RAISES = 3;
  private static final int NEEDS = 4;
  private static final int RANK = 5;
  private static final long NOTE_EVERY_NANOS = 2_000_000_000L;
  private static final long STATES_BETWEEN_LOOKS_AT_THE_CLOCK = 1 << 10;

  /** Steps of each lane; they are numbered from 1 on. */
  private static final int[] LENGTH = new int[lanes() + 1];

  private static final int[][][] LANE = readLanes();
  private static final Set<Long> WANTED = readWanted();
  private static final long STATES_MAX = Long.getLong("vchan.states", 0);

  /** The furthest the receiver's lane was followed with that many steps of the sender's. */
  private static final int[] FURTHEST = newFurthest();

  /** Steps of both lanes that were done at most. */
  private static int furthest;

  private static long states;
  private static int numbered;
  private static final long[] STATES_BY = newStatesBy();
  private static long noted = System.nanoTime();

  @Override
  @SuppressWarnings("rawtypes")
  public Class[] get() {
    return new Class[] {TLCOverrides.class};
  }

  @TLAPlusOperator(identifier = "LanePairs", module = "Lanes")
  public static Value lanePairs() {
    return IntValue.gen((LENGTH.length - 1) / 2);
  }

  @TLAPlusOperator(identifier = "LaneLength", module = "Lanes")
  public static Value laneLength(final IntValue lane) {
    return IntValue.gen(LENGTH[lane.val]);
  }

  @TLAPlusOperator(identifier = "LaneAction", module = "Lanes")
  public static Value laneAction(final IntValue lane, final IntValue done) {
    return column(ACTION, lane, done, 0);
  }

  @TLAPlusOperator(identifier = "LaneValue", module = "Lanes")
  public static Value laneValue(final IntValue lane, final IntValue done) {
    return column(VALUE, lane, done, 1);
  }

  @TLAPlusOperator(identifier = "LaneAfter", module = "Lanes")
  public static Value laneAfter(final IntValue lane, final IntValue done) {
    return column(AFTER, lane, done, Integer.MAX_VALUE);
  }

  @TLAPlusOperator(identifier = "LaneRaises", module = "Lanes")
  public static Value laneRaises(final IntValue lane, final IntValue done) {
    return column(RAISES, lane, done, 0);
  }

  @TLAPlusOperator(identifier = "LaneNeeds", module = "Lanes")
  public static Value laneNeeds(final IntValue lane, final IntValue done) {
    return column(NEEDS, lane, done, 0);
  }

  @TLAPlusOperator(identifier = "LaneRank", module = "Lanes")
  public static Value laneRank(final IntValue lane, final IntValue done) {
    return column(RANK, lane, done, Integer.MAX_VALUE);
  }

  /** Counts a state and notes its place; false when that is one state too many. */
  @TLAPlusOperator(identifier = "Reached", module = "Lanes")
  public static Value reached(final IntValue sender, final IntValue receiver) {
    FURTHEST[sender.val] = Math.max(FURTHEST[sender.val], receiver.val);
    furthest = Math.max(furthest, sender.val + receiver.val);
    states++;
    if (states % STATES_BETWEEN_LOOKS_AT_THE_CLOCK == 0
        && System.nanoTime() - noted > NOTE_EVERY_NANOS) {
      noted = System.nanoTime();
      System.out.println("@AT " + furthest + " " + states);
    }
    return STATES_MAX == 0 || states <= STATES_MAX ? BoolValue.ValTrue : BoolValue.ValFalse;
  }

  /** Counts a state of one trace out of many; false when that is one too many of it. */
  @TLAPlusOperator(identifier = "ReachedBy", module = "Lanes")
  public static Value reachedBy(
      final IntValue number, final IntValue sender, final IntValue receiver) {
    final long count = ++STATES_BY[number.val];
    return STATES_MAX == 0 || count <= STATES_MAX ? BoolValue.ValTrue : BoolValue.ValFalse;
  }

  @TLAPlusOperator(identifier = "Wanted", module = "Lanes")
  public static Value wanted(final IntValue sender, final IntValue receiver) {
    return WANTED.contains(place(sender.val, receiver.val)) ? BoolValue.ValTrue : BoolValue.ValFalse;
  }

  /** The argument keeps TLC from taking it for a constant. */
  @TLAPlusOperator(identifier = "Numbered", module = "Lanes")
  public static Value numbered(final Value any) {
    return IntValue.gen(++numbered);
  }

  /** One line for the reader of TLC's output. TLC's own Print folds long values. */
  @TLAPlusOperator(identifier = "Say", module = "Lanes")
  public static Value say(final StringValue word, final Value value) {
    System.out.println("@" + word.val + " " + value);
    return BoolValue.ValTrue;
  }

  private static Value column(
      final int column, final IntValue lane, final IntValue done, final int beyond) {
    return IntValue.gen(
        done.val < LENGTH[lane.val] ? LANE[lane.val][column][done.val] : beyond);
  }

  private static int lanes() {
    return 2 * Integer.getInteger("vchan.pairs", 1);
  }

  private static int[][][] readLanes() {
    final int[][][] lanes = new int[LENGTH.length][COLUMNS][1 << 6];
    try (BufferedReader in = Files.newBufferedReader(Path.of(System.getProperty("vchan.lanes")))) {
      in.readLine();
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        append(lanes, line);
      }
    } catch (IOException e) {
      throw new IllegalStateException("the lanes cannot be read", e);
    }
    return lanes;
  }

  private static void append(final int[][][] lanes, final String line) {
    final String[] cells = line.split(",");
    final int lane = Integer.parseInt(cells[0]);
    final int at = LENGTH[lane]++;
    for (int column = 0; column < COLUMNS; column++) {
      if (at == lanes[lane][column].length) {
        lanes[lane][column] = Arrays.copyOf(lanes[lane][column], 2 * at);
      }
      lanes[lane][column][at] = Integer.parseInt(cells[column + 1]);
    }
  }

  private static Set<Long> readWanted() {
    final Set<Long> wanted = new HashSet<>();
    final String name = System.getProperty("vchan.wanted");
    if (name == null) {
      return wanted;
    }
    try (BufferedReader in = Files.newBufferedReader(Path.of(name))) {
      in.readLine();
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        final String[] cells = line.split(",");
        wanted.add(place(Integer.parseInt(cells[0]), Integer.parseInt(cells[1])));
      }
    } catch (IOException e) {
      throw new IllegalStateException("the wanted positions cannot be read", e);
    }
    return wanted;
  }

  private static long place(final int sender, final int receiver) {
    return ((long) sender << 32) | receiver;
  }

  private static int[] newFurthest() {
    final int[] furthest = new int[LENGTH[1] + 1];
    Arrays.fill(furthest, -1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> writeReached(furthest)));
    return furthest;
  }

  private static long[] newStatesBy() {
    final long[] counts = new long[lanes() / 2 + 1];
    final String name = System.getProperty("vchan.counts");
    if (name != null) {
      Runtime.getRuntime().addShutdownHook(new Thread(() -> writeCounts(name, counts)));
    }
    return counts;
  }

  private static void writeCounts(final String name, final long[] counts) {
    try (PrintWriter out = new PrintWriter(name)) {
      out.println("number,states");
      for (int number = 1; number < counts.length; number++) {
        out.println(number + "," + counts[number]);
      }
    } catch (IOException e) {
      throw new IllegalStateException("the counts of states cannot be written", e);
    }
  }

  /** Those positions beyond which no other one lies in both lanes. */
  private static void writeReached(final int[] furthest) {
    try (PrintWriter out = new PrintWriter(System.getProperty("vchan.reached"))) {
      out.println("sender,receiver");
      int best = -1;
      for (int sender = furthest.length - 1; sender >= 0; sender--) {
        if (furthest[sender] > best) {
          best = furthest[sender];
          out.println(sender + "," + best);
        }
      }
    } catch (IOException e) {
      throw new IllegalStateException("the positions reached cannot be written", e);
    }
  }
}
