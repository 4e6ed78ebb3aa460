"""Named errors of the shared-memory layer. Each says what was found, what was expected and what to do."""

from __future__ import annotations


class ShmError(Exception):
    """Base of every error raised by this package."""


class RegionMissing(ShmError):
    """The region's file does not exist: nothing has created this instance yet."""


class RegionExists(ShmError):
    """Creation was asked for, but a region of that name is there already."""


class RegionForeign(ShmError):
    """The file is not one of our regions (wrong magic or too short)."""


class RegionMismatch(ShmError):
    """A header field differs from what this program expects (version, dtype, capacity, kind)."""


class RegionReplaced(ShmError):
    """The region was removed, or made anew, while it was mapped: attach again."""


class RegionReadOnly(ShmError):
    """The file system, or this user's rights, allow no region to be made or written there."""


class RegionFull(ShmError):
    """/dev/shm or the file system has no room for the region."""


class WriterTaken(ShmError):
    """A second writer asked for a ring or cell whose first writer is alive."""


class NotDeclared(ShmError):
    """The topology does not give this service that access."""
