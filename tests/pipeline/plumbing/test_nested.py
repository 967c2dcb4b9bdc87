from pipeline.plumbing.nested import ABSENT, differing, leaves


def test_every_leaf_has_its_dotted_name() -> None:
    assert dict(leaves({"model": {"n": 2, "objective": {}}, "seed": 1})) == {
        "model.n": 2,
        "model.objective": {},
        "seed": 1,
    }


def test_what_differs_is_told_in_order_with_both_values() -> None:
    assert differing({"b": 1, "a": None, "same": [1]}, {"a": 0, "same": [1]}) == {"a": (None, 0), "b": (1, ABSENT)}
