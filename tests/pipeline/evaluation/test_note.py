from pipeline.evaluation.note import evaluation_note, mirrored


def test_figures_with_their_intervals_and_players_of_every_kind():
    metrics = {"eval/loss": 3.3694, "eval/loss/low": 3.2, "eval/loss/high": 3.55, "audio/fd": 101.6}
    clips = ["codec_00.wav", *(f"continuation_{n:02d}.wav" for n in range(6)), "real_00.wav"]
    lines = evaluation_note(metrics, clips, lambda file: f"#/{file}").split("\n")
    assert lines[0] == "Test loss **3.369** (3.200 to 3.550) nats a token; Fréchet distance **102**."
    assert lines[2:4] == ["- Real: [1](#/audio/real_00.wav)", "- Codec ceiling: [1](#/audio/codec_00.wav)"]
    assert lines[4].startswith("- Continuation: [1](#/audio/continuation_00.wav) [2]")
    assert lines[4].count("](") == 4


def test_the_training_shows_every_figure_but_only_the_intervals_of_the_headline():
    metrics = {"eval/loss": 3.0, "eval/loss/low": 2.0, "eval/accuracy": 0.1, "eval/accuracy/high": 0.2}
    assert mirrored(metrics, ["eval/loss"]).keys() == {"eval/loss", "eval/loss/low", "eval/accuracy"}
