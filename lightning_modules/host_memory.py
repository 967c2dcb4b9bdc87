"""What the C library does with memory that training frees."""

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_AT_MOST = 1 << 30
LARGEST_BLOCK = 1 << 25


def keep_freed_memory() -> None:
    """Have this process keep up to 1 GiB that it frees, for the next tensors, instead of handing it to the kernel.

    A step on a CPU frees its activations and asks for as many again: by default the kernel takes them back in between,
    and clears every page anew. Only glibc is asked so; other libraries go by rules of their own.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_TRIM_THRESHOLD, KEPT_AT_MOST)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
