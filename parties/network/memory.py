"""Where a process that moves frames gets its memory from."""

from __future__ import annotations

_NBYTES = 31 * 1024 * 1024  # just below the largest that glibc lets change its mind


def keep_freed_memory() -> None:
    """Have the C library keep what was freed (62 MiB at most a thread), instead of giving it back to the system.

    glibc otherwise gives a freed frame of 1 MiB back at once, and the next one costs 256 page faults: measured, 0.2 to
    0.4 ms each time, as long as it takes to seal it. Freeing one large block makes it raise its thresholds
    (`mallopt(3)`, M_MMAP_THRESHOLD: "dynamic"). Other C libraries take no notice.
    """
    bytearray(_NBYTES)
