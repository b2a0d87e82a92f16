"""The exact tracer: its C core, the trace file, the reader and the checks."""
