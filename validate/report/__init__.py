"""The report of a run: one page and one JUnit file."""
