"""The shared image: named arrays in one file that core and the operate workers map.

The file lies in the run folder (a tmpfs in production), readable by the daemon's user only. Its layout is a plain list, so a second
process maps it from the list alone; a digest of the layout in the header refuses a file of another build.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.runtime.errors import ImageError

_HEADER = 64
_ALIGN = 64
_MAX_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class Block:
    """One array: its name, numpy type code and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def layout_json(blocks: Sequence[Block]) -> str:
    """The layout as it is sent to the other process."""
    return json.dumps([[block.name, block.dtype, list(block.shape)] for block in blocks], separators=(",", ":"))


def layout_from_json(text: str) -> list[Block]:
    """The inverse of :func:`layout_json`. Raises ImageError on anything else."""
    try:
        return [Block(str(name), str(dtype), tuple(int(n) for n in shape)) for name, dtype, shape in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ImageError(
            f"the image's layout cannot be read ({error}); stop poetd and remove the run folder"
        ) from error


def private_arrays(blocks: Sequence[Block]) -> dict[str, npt.NDArray[Any]]:
    """The same arrays in this process's own memory, zero-filled."""
    return {block.name: np.zeros(block.shape, block.dtype) for block in blocks}


class SharedImage:
    """The mapped arrays. Zero-filled at creation: zero quality is bad, zero status is "not run"."""

    def __init__(self, path: Path, blocks: Sequence[Block], *, create: bool) -> None:
        self.path = path
        self.blocks = tuple(blocks)
        offsets, size = [], _HEADER
        for block in self.blocks:
            offsets.append(size)
            nbytes = int(np.dtype(block.dtype).itemsize * np.prod(block.shape, dtype=np.int64))
            size += (nbytes + _ALIGN - 1) // _ALIGN * _ALIGN
        if size > _MAX_BYTES:
            raise ImageError(
                f"the image would take {size} bytes, more than {_MAX_BYTES}: split the site over several agents"
            )
        digest = hashlib.sha256(layout_json(self.blocks).encode()).digest()
        self._map = self._create(path, size, digest) if create else self._open(path, size, digest)
        self.arrays: dict[str, npt.NDArray[Any]] = {
            block.name: np.frombuffer(
                self._map, dtype=block.dtype, count=int(np.prod(block.shape, dtype=np.int64)), offset=offset
            ).reshape(block.shape)
            for block, offset in zip(self.blocks, offsets, strict=True)
        }

    @staticmethod
    def _create(path: Path, size: int, digest: bytes) -> mmap.mmap:
        path.unlink(missing_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ImageError(
                f"cannot create {path}: {error.strerror}; the run folder must be writable by poetd"
            ) from error
        try:
            os.posix_fallocate(fd, 0, size)
            mapped = mmap.mmap(fd, size)
        except OSError as error:
            raise ImageError(f"no room for the image of {size} bytes at {path}: {error.strerror}") from error
        finally:
            os.close(fd)
        mapped[: len(digest)] = digest
        return mapped

    @staticmethod
    def _open(path: Path, size: int, digest: bytes) -> mmap.mmap:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise ImageError(f"cannot open {path}: {error.strerror}; is core running?") from error
        try:
            if os.fstat(fd).st_size != size:
                raise ImageError(
                    f"{path} has another size than its layout says: core and operate are of different builds"
                )
            mapped = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        if mapped[: len(digest)] != digest:
            raise ImageError(f"{path} has another layout: core and operate are of different builds")
        return mapped

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]
