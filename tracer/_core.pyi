"""The compiled extension, see core/api.h."""

from typing import Any

ffi: Any
lib: Any
