"""The helper's private folder on the host: scripts, domain configurations, what is sent to it."""

from __future__ import annotations

import hashlib
import pkgutil
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vchan_testbed.errors import TestbedError

PREFIX = "vchan-testbed-"
# Not the small memory file system that /tmp often is: kernel and archive take 50 MB.
ROOMY = Path("/var/tmp")


class Files:
    """The folder, made with mode 0700 and removed by `close`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=ROOMY if ROOMY.is_dir() else None))
        self._upload: Upload | None = None

    def close(self) -> None:
        """Remove everything."""
        self.drop_upload()
        shutil.rmtree(self.folder)

    def script(self, name: str) -> Path:
        """One of our scripts, as a file that xl can run."""
        path = self.folder / name
        if not path.exists():
            content = pkgutil.get_data("vchan_testbed.guests.helper", f"scripts/{name}")
            assert content is not None
            path.write_bytes(content)
            path.chmod(0o700)
        return path

    def stored(self, sha256: str) -> Path | None:
        """The file with this hash, if it was sent before."""
        path = self._path(sha256)
        return path if path.exists() else None

    def begin_upload(self, sha256: str, size_bytes: int) -> Path:
        """DATA frames that follow belong to this file. Raises TestbedError when it cannot fit."""
        self.drop_upload()
        free_bytes = shutil.disk_usage(self.folder).free
        if size_bytes > free_bytes:
            raise TestbedError(
                f"{self.folder.parent} on this host has {free_bytes >> 20} MiB left, and"
                f" {size_bytes >> 20} MiB are to be put there.",
                next_step="Make room there.",
            )
        path = self._path(sha256)
        part = path.with_suffix(".part")
        self._upload = Upload(sha256, part, part.open("wb"), zlib.decompressobj())
        return path

    def take(self, data: bytes) -> None:
        """The next piece of the file that is being sent, as zlib packed it."""
        if self._upload is None:
            raise TestbedError("Data arrived for no file.", next_step="Run again.")
        try:
            self._upload.file.write(self._upload.unpacker.decompress(data))
        except zlib.error as error:
            self.drop_upload()
            raise TestbedError(f"A file arrived broken: {error}", next_step="Run again.") from error

    def end_upload(self, sha256: str) -> Path:
        """The file is whole now. Raises TestbedError when it is not what was announced."""
        upload, self._upload = self._upload, None
        if upload is None or upload.sha256 != sha256:
            raise TestbedError("No file of this hash was being sent.", next_step="Run again.")
        upload.file.close()
        with upload.part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            upload.part.unlink()
            raise TestbedError(
                "A file arrived with another hash than announced.",
                next_step="Run again; if it comes back, the way to this host is broken.",
            )
        return upload.part.rename(self._path(sha256))

    def drop_upload(self) -> None:
        """The sender is gone."""
        if self._upload is not None:
            self._upload.file.close()
            self._upload.part.unlink()
            self._upload = None

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise TestbedError(f"{sha256!r} is not a SHA-256.", next_step="Run again.")
        return self.folder / sha256


@dataclass(frozen=True)
class Upload:
    """A file that is being sent."""

    sha256: str
    part: Path
    file: BinaryIO
    unpacker: zlib._Decompress
