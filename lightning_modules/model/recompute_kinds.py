"""What a training may keep of its activations. Light: needs no torch.

From the most memory to the least: all of them; products, attention and routing (arXiv 2412.19437, section 3.2.3); the
input of every block; that, in the host's memory.
"""

RECOMPUTE_KINDS = ("none", "activations", "blocks", "blocks_offloaded")
