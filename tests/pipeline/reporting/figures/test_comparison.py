from pipeline.reporting.figures.comparison import dot_plot, loss_bars


def test_only_baselines_that_were_measured_are_drawn():
    svg = loss_bars([{"codebook": 0, "model": 2.9, "bigram": 3.8}, {"codebook": 1, "model": 3.2, "bigram": 4.1}])
    assert ">bigram<" in svg
    assert ">uniform<" not in svg
    assert ">2.90<" in svg


def test_dots_span_many_decades_and_leave_out_what_a_logarithm_cannot_show():
    svg = dot_plot({"tone": 7.1e-8, "noise": 0.995, "silence": 0.0}, {"tone": "control"}, "flatness", "flatness")
    assert ">7.1 × 10⁻⁸<" in svg
    assert ">0.995<" in svg
    assert ">silence<" not in svg
