from dataclasses import replace

import pytest

from pipeline.checkpoints.huggingface import huggingface_config


def test_whole_heads_that_rotate_cannot_be_published(tiny_config):
    whole = replace(tiny_config, qk_nope_head_dim=8, qk_rope_head_dim=0)
    with pytest.raises(ValueError, match=r"model\.qk_rope_head_dim is 0.*train with decoupled"):
        huggingface_config(whole, {}, "float32")
