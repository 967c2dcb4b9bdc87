"""What a conversion can be asked for, by name. Light: needs no torch."""

# As the modules of layouts/ call themselves.
WRITABLE_LAYOUTS = ("lightning", "distributed", "huggingface", "deepseek")
READABLE_LAYOUTS = (*WRITABLE_LAYOUTS, "legacy")
DTYPES = ("keep", "bfloat16", "float32", "fp8")
DROPPABLE = ("mtp", "expert_loads")
# Which weights of a training are read.
TRAINED, AVERAGED = "trained", "ema"
WEIGHTS = (TRAINED, AVERAGED)
