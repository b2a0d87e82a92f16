"""A look at live channels, from outside of the two processes: what hangs, and whose it is.

It only reads, and needs nothing but Python's standard library and, in dom0, Xen's own libraries and
programs. `build.py` makes one file of it that can be carried to a host.

processes.py and xen.py find channels and take looks; page.py reads the shared page; places.py
knows, from the spec, where both ends may be with such a page; judge.py draws the conclusion;
show.py says it.
"""
