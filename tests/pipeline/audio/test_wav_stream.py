import io

import numpy as np
import soundfile

from pipeline.audio.reading import read_audio, write_wav
from pipeline.audio.wav_stream import pcm16, wav_stream_header


def test_a_stream_is_read_as_the_file_of_the_same_samples(tmp_path) -> None:
    audio = np.random.default_rng(0).uniform(-1.2, 1.2, 5000).astype(np.float32)
    write_wav(tmp_path / "file.wav", audio, 8000)
    stream = wav_stream_header(8000) + pcm16(audio[:1000]) + pcm16(audio[1000:])
    (tmp_path / "stream.wav").write_bytes(stream)
    for read in (
        lambda: soundfile.read(io.BytesIO(stream), dtype="float32"),
        lambda: read_audio(tmp_path / "stream.wav"),
    ):
        heard, sample_rate = read()
        assert sample_rate == 8000
        np.testing.assert_array_equal(heard, read_audio(tmp_path / "file.wav")[0])
    # All but the two lengths, which nobody knows yet, is what a file begins with.
    file, unknown = (tmp_path / "file.wav").read_bytes(), b"\xff" * 4
    assert stream[:44] == file[:4] + unknown + file[8:40] + unknown
    assert stream[44:] == file[44:]
