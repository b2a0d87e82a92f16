"""Names the cffi modules; everything else stands in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=[
        "src/vchan_testbed/bindings/build_vchan.py:ffibuilder",
        "src/vchan_testbed/tracer/build_core.py:ffibuilder",
    ]
)
