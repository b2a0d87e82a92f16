"""The compiled extension, see declarations.py."""

from typing import Any

ffi: Any
lib: Any
