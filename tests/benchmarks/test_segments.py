from benchmarks.segments import compare


def test_variants_meet_at_equal_parameters() -> None:
    result = compare(n_steps=3, n_seeds=1, batch_size=4, sequence_length=16, device="cpu")
    variants = result["variants"]
    assert variants.keys() == {"whole", "independent", "custom", "hierarchical"}
    whole = variants["whole"]
    for name, variant in variants.items():
        assert variant["expert_parameters"] == whole["expert_parameters"]
        assert variant["parameters"] - whole["parameters"] < 0.02 * whole["parameters"]  # the routers' rows
        if name != "custom":
            assert variant["active_expert_parameters"] == whole["active_expert_parameters"]
        assert variant["tokens_per_second"] > 0
        assert variant["loss"] > result["loss_floor"]
