from pipeline.evaluation.note import evaluation_note


def test_figures_with_their_intervals_and_players_of_every_kind():
    metrics = {"eval/loss": 3.3694, "eval/loss/low": 3.2, "eval/loss/high": 3.55, "audio/fd": 101.6}
    clips = ["codec_00.wav", *(f"continuation_{n:02d}.wav" for n in range(6))]
    lines = evaluation_note(metrics, clips, lambda file: f"#/{file}").split("\n")
    assert lines[0] == "Test loss **3.369** [3.200, 3.550] nats a token; Fréchet distance **102**."
    assert lines[2] == "- codec: [00](#/audio/codec_00.wav)"
    assert lines[3].startswith("- continuation: [00](#/audio/continuation_00.wav) [01]")
    assert lines[3].count("](") == 4
