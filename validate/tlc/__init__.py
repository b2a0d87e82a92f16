"""TLC as the reference judge: the jar, running it, and following a trace with it."""
