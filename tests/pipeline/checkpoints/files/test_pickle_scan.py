import io
import pickle

import pytest

from pipeline.checkpoints.files.pickle_scan import check_expansion
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

SHARED = (0.9, 0.95)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.0, "x", b"y", None, True, {1, 2}, frozenset({3}), ("z",), 2**80]},
        [{"betas": SHARED, "params": list(range(20))} for _ in range(2000)],
        [SHARED] * 50_000,
    ],
)
def test_honest_pickles_of_every_protocol_pass(value: object, protocol: int) -> None:
    file = io.BytesIO(pickle.dumps(value, protocol) + pickle.dumps(value, protocol))
    check_expansion(file, 2, "x.pt")
    assert file.read() == b""


def doubling(levels: int) -> bytes:
    """A key of tuples of twice the same tuple, by hand: hashing it to pickle it would take for ever."""
    doubled = b"".join(b"h" + bytes([level]) + b"\x86q" + bytes([level + 1]) for level in range(levels))
    return b"\x80\x02}))\x86q\x00" + doubled + b"Ns."


def test_what_doubles_with_every_level_is_refused() -> None:
    check_expansion(io.BytesIO(doubling(12)), 1, "x.pt")
    assert len(pickle.loads(doubling(12))) == 1
    with pytest.raises(DamagedCheckpointError, match=r"x\.pt holds a few objects that refer to each other"):
        check_expansion(io.BytesIO(doubling(40)), 1, "x.pt")
