"""Merge, replay, verdict, report: reads traces, never touches Xen."""
