"""How far a conversion has come, in bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to call with (file, bytes done, bytes in all)."""
    with tqdm(desc=description, unit="B", unit_scale=True, unit_divisor=1024) as bar:

        def show(file: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(file, refresh=False)
            bar.update(done - bar.n)

        yield show
