"""The agent: performs one endpoint of an experiment inside a domain.

A supervisor speaks frames on its standard input and output; one worker process, which can be
killed, makes the vchan calls under the tracer. Only the standard library, cffi's runtime and our
own small modules are imported: a guest has no numpy, YAML or click.
"""
