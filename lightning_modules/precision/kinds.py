"""What a training can compute in. Light: needs no torch."""

FP8_RECIPES = ("fp8_deepseek", "fp8_rowwise", "fp8_tensorwise")
PRECISIONS = ("fp32", "bf16", "fp16", *FP8_RECIPES)
