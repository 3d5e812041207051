"""The error tree of the kernel loader. Every message says what to do about it."""

from __future__ import annotations


class KernelError(Exception):
    """Root of everything the kernel loader raises on purpose."""


class KernelsNotBuiltError(KernelError):
    """Ahead-of-time kernels were asked for and there is no build for this source, interpreter, numba and CPU."""


class CompilerMissingError(KernelError):
    """Ahead-of-time kernels cannot be built here: there is no working C compiler, or numba is not installed."""


class CacheUntrustedError(KernelError):
    """Somebody else could have written to the cache folder or to a build in it, so nothing is loaded from there."""


class KernelSourceError(KernelError):
    """A kernels module breaks the convention: no SIGNATURES, or a name in it that is not a function."""
