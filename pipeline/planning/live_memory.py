"""Bytes alive at any moment of a computation, by what they are for."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Segment:
    """A stretch of a computation.

    Attributes:
        name: what it is.
        start: bytes alive when it began, by category.
        peak: the most that were alive at once, by category.
        end: bytes alive when it ended.
    """

    name: str
    start: Counter[str]
    peak: Counter[str] = field(default_factory=Counter)
    end: Counter[str] = field(default_factory=Counter)


# FSDP empties and refills storages of this category instead of making new ones.
RESIZED = "gathered"


class LiveMemory(TorchDispatchMode):
    """Counts the storages of tensors that are created while it is on, for as long as anything refers to them.

    Works on fake tensors, which take no memory, as on real ones. Tensors from before do not count. Storages of the
    category RESIZED count by the size they have at the moment, all others by the size they were created with.

    Args:
        kernels: for operations that fake tensors do not know, what allocates the same results.

    Attributes:
        category: what is being allocated now is for; None: it does not count.
        segments: what `begin` has opened so far.
    """

    def __init__(self, kernels: Mapping[Any, Callable[..., Tensor]] | None = None) -> None:
        super().__init__()
        self.kernels = kernels or {}
        self.category: str | None = "activations"
        self.segments: list[Segment] = []
        self._alive: Counter[str] = Counter()
        # By address. The category is None for a storage that does not count.
        self._storages: dict[int, _Storage] = {}
        self._resized: dict[int, _Storage] = {}

    def begin(self, name: str) -> None:
        """Close the segment under way, and open another."""
        now = self.alive()
        if self.segments:
            self._note()
            self.segments[-1].end = now
        self.segments.append(Segment(name, now, now))

    def alive(self) -> Counter[str]:
        """Bytes alive now, by category."""
        return self._alive + Counter({RESIZED: self._resized_bytes()})

    @contextmanager
    def allocating(self, category: str | None) -> Iterator[None]:
        """Count what is allocated within as `category`."""
        before, self.category = self.category, category
        try:
            yield
        finally:
            self.category = before

    def move(self, tensor: Tensor, category: str) -> None:
        """Count a tensor's storage, which was created while this was on, as `category` from now on."""
        storage = self._storages[tensor.untyped_storage()._cdata]
        if storage.category is not None:
            self._alive[storage.category] -= storage.size
        storage.category = category
        self._alive[category] += storage.size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._register((args, kwargs), None)
        result = self.kernels.get(func, func)(*args, **kwargs)
        self._register(result, self.category)
        self._note()
        return result

    def _register(self, values: Any, category: str | None) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key in self._storages:
                    continue
                entry = _Storage(weakref.ref(storage, partial(self._forget, key)), category, storage.nbytes())
                self._storages[key] = entry
                if category == RESIZED:
                    self._resized[key] = entry
                elif category is not None:
                    self._alive[category] += entry.size

    def _forget(self, key: int, _: Any) -> None:
        entry = self._storages.pop(key)
        if self._resized.pop(key, None) is None and entry.category is not None:
            self._alive[entry.category] -= entry.size

    def _resized_bytes(self) -> int:
        storages = [entry.reference() for entry in self._resized.values()]
        return sum(storage.nbytes() for storage in storages if storage is not None)

    def _note(self) -> None:
        if self.segments and self._alive.total() + self._resized_bytes() > self.segments[-1].peak.total():
            self.segments[-1].peak = self.alive()


@dataclass
class _Storage:
    """A storage, what it is for, and its size when it was first seen."""

    reference: weakref.ref[Any]
    category: str | None
    size: int
