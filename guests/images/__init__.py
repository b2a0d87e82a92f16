"""The guest images: a Debian root, our extensions built in it, and archives cut from it."""

from vchan_testbed.guests.images.builder import Images, build, kept_root

__all__ = ["Images", "build", "kept_root"]
