"""Names what is compiled; everything else stands in pyproject.toml."""

from runpy import run_path

from setuptools import setup

setup(
    cffi_modules=[
        "src/vchan_testbed/bindings/build_vchan.py:ffibuilder",
        "src/vchan_testbed/tracer/build_core.py:ffibuilder",
    ],
    ext_modules=[run_path("src/vchan_testbed/tracer/build_preload.py")["make_extension"]()],
)
