"""vchan-testbed: real Xen vchan runs, held against the TLA+ spec.

One path: workload -> domains -> trace -> merge -> replay -> verdict -> report.
"""

__version__ = "0.1.0"
