"""Are the target's numbers the source's: of the right types, finite, and no further off than rounding explains?"""

from collections import Counter
from collections.abc import Mapping

import torch

from pipeline.checkpoints.names import ALWAYS_FP32, is_linear
from pipeline.conversion.check import FAIL, PASS, Check, listed
from pipeline.conversion.survey import TensorFacts

# Relative, of a whole tensor. Rounding to nearest moves a number by half a unit in its last place: 2⁻⁸ of it in BF16,
# 2⁻⁴ in E4M3, where numbers far below their block's largest add a little more.
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float8_e4m3fn": 2.0**-4 + 2.0**-11}
TYPES = {"bfloat16": "bfloat16", "float32": "float32", "fp8": "bfloat16"}


def check_dtypes(facts: Mapping[str, TensorFacts], dtype: str) -> Check:
    """Every tensor has the type that was asked for, or the source's with `keep`."""
    wrong = [
        f"{name} ({fact.dtype} for {wanted})"
        for name, fact in facts.items()
        if fact.dtype != (wanted := wanted_dtype(name, fact.source_dtype, dtype))
    ]
    counts = dict(Counter(fact.dtype for fact in facts.values()).most_common())
    if wrong:
        return Check("dtypes", FAIL, f"{len(wrong)} tensors have another type: {listed(wrong)}", counts)
    return Check("dtypes", PASS, ", ".join(f"{count:,} {kind}" for kind, count in counts.items()), counts)


def wanted_dtype(name: str, source_dtype: str, dtype: str) -> str:
    """The type that a tensor should have in the target: routers' statistics stay as exact as they are."""
    if dtype == "keep":
        return source_dtype
    if name.endswith(ALWAYS_FP32):
        return "float32"
    return "float8_e4m3fn" if dtype == "fp8" and is_linear(name) else TYPES[dtype]


def check_finite(facts: Mapping[str, TensorFacts]) -> Check:
    """No number is NaN or infinite."""
    broken = [name for name, fact in facts.items() if fact.n_nonfinite]
    numbers = {"nonfinite": sum(fact.n_nonfinite for fact in facts.values())}
    if broken:
        sentence = f"{numbers['nonfinite']:,} numbers are NaN or infinite, in {listed(broken)}"
        return Check("finite values", FAIL, sentence, numbers)
    return Check("finite values", PASS, "every number is finite", numbers)


def check_differences(facts: Mapping[str, TensorFacts]) -> Check:
    """No tensor is further from its source than rounding to its type explains: equal, where the type stayed."""
    wrong = [name for name, fact in facts.items() if not fact.relative_error <= rounding_bound(fact)]
    largest = max((fact.relative_error for fact in facts.values()), default=0.0)
    n_changed = sum(fact.relative_error > 0 for fact in facts.values())
    numbers = {"largest_relative_error": largest, "rounded": n_changed, "wrong": len(wrong)}
    if wrong:
        sentence = f"{len(wrong)} tensors are not what the source holds: {listed(wrong)}"
        return Check("equal to source", FAIL, sentence, numbers)
    if not n_changed:
        return Check("equal to source", PASS, "every number is the source's, bit for bit", numbers)
    return Check("equal to source", PASS, f"{n_changed:,} tensors were rounded, by {largest:.2g} at most", numbers)


def rounding_bound(fact: TensorFacts) -> float:
    """The relative error of a tensor that rounding from its source's type to its own can make."""
    if fact.dtype == fact.source_dtype or _holds(fact.dtype, fact.source_dtype):
        return 0.0
    return ROUNDING.get(fact.dtype, 0.0)


def _holds(wide: str, narrow: str) -> bool:
    """Whether every number of one type is one of the other too; FP8 comes with its factors, in FP32."""
    if "float8_e4m3fn" in (wide, narrow):
        return wide == "float32"
    return torch.promote_types(getattr(torch, wide), getattr(torch, narrow)) == getattr(torch, wide)
