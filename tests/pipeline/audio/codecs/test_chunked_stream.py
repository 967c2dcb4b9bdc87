import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.codecs.chunked_stream import ChunkedStream

CHUNK, LOOKAHEAD, CONTEXT = 4, 2, 3


def recording_stream():
    """A stream whose one sample a frame is the frame's code, and the windows that it was handed."""
    windows = []

    def decode_chunk(codes, n_context, n_new):
        windows.append((codes[:, 0].tolist(), n_context, n_new))
        return codes[n_context : n_context + n_new, 0].float()

    return ChunkedStream(decode_chunk, 1, 1000, CHUNK, LOOKAHEAD, CONTEXT), windows


def run(pushes):
    stream, windows = recording_stream()
    samples = [stream.push(codes) for codes in pushes] + [stream.finish()]
    return torch.cat(samples), windows


@given(n_frames=st.integers(0, 40), data=st.data())
def test_cuts_change_neither_windows_nor_samples(n_frames, data):
    codes = torch.arange(n_frames)[:, None]
    cuts = sorted(data.draw(st.lists(st.integers(0, n_frames), max_size=8)))
    samples, windows = run(torch.tensor_split(codes, cuts))
    whole_samples, whole_windows = run([codes])
    assert samples.tolist() == list(range(n_frames))
    assert torch.equal(samples, whole_samples)
    assert windows == whole_windows


def test_windows_have_context_and_look_ahead():
    _, windows = run([torch.arange(11)[:, None]])
    assert windows == [
        ([0, 1, 2, 3, 4, 5], 0, 4),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 3, 4),
        ([5, 6, 7, 8, 9, 10], 3, 3),
    ]


def test_a_chunk_comes_with_the_last_frame_of_its_look_ahead():
    stream, _ = recording_stream()
    lengths = [len(stream.push(torch.tensor([[frame]]))) for frame in range(6)]
    assert lengths == [0, 0, 0, 0, 0, 4]


def test_nothing_is_pushed_after_the_end():
    stream, _ = recording_stream()
    assert len(stream.finish()) == 0
    with pytest.raises(RuntimeError, match="finished"):
        stream.push(torch.tensor([[0]]))


def test_codes_out_of_range_are_refused_at_once():
    stream, windows = recording_stream()
    with pytest.raises(ValueError, match="999"):
        stream.push(torch.tensor([[1000]]))
    assert windows == []
