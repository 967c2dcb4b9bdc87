import torch

from pipeline.planning.live_memory import LiveMemory


def test_storages_count_for_as_long_as_they_live():
    before = torch.zeros(1000)
    with LiveMemory() as live:
        live.begin("first")
        kept = torch.zeros(100)
        with live.allocating("temporary"):
            temporary = before * 2
        view = kept[:10]
        live.begin("second")
        del temporary
        other = view + 1
        live.begin("third")
    first, second, _ = live.segments
    assert first.peak == {"activations": 400, "temporary": 4000}
    assert second.start.total() == 4400
    # The peak is what the segment began with; a view takes nothing, what was there before does not count.
    assert second.peak.total() == 4400
    assert +second.end == {"activations": 440}
    del kept
    assert live.alive()["activations"] == 440
    del view, other
    assert live.alive().total() == 0


def test_gathered_storages_count_by_their_size_of_the_moment():
    with LiveMemory() as live:
        live.begin("all")
        with live.allocating("gathered"):
            gathered = torch.zeros(100)
        gathered.untyped_storage().resize_(0)
        assert live.alive()["gathered"] == 0
        gathered.untyped_storage().resize_(800)
        assert live.alive()["gathered"] == 800


def test_what_autograd_keeps_counts_until_the_backward_pass():
    weight = torch.ones(10, 10, requires_grad=True)
    with LiveMemory() as live:
        live.begin("forward")
        loss = torch.ones(5, 10).matmul(weight).exp().sum()
        live.begin("backward")
        loss.backward()
        live.move(weight.grad, "gradients")
        live.begin("end")
    kept = 5 * 10 * 4
    # The inputs for the weight's gradient, exp's result for its own, and the loss.
    assert live.segments[1].start["activations"] == 2 * kept + 4
    assert live.segments[1].end["gradients"] == 400
