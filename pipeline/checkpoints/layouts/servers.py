"""What vLLM and SGLang do otherwise than the decoder: docs/other_servers.md."""

from collections.abc import Iterator

from lightning_modules.model.attention import LATENT_NORM_EPS
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import BLOCK


def server_notes(config: DecoderConfig, in_fp8: bool) -> tuple[str, ...]:
    """A sentence for each setting that they leave aside or refuse, whatever config.json says."""
    return tuple(_notes(config, in_fp8))


def _notes(config: DecoderConfig, in_fp8: bool) -> Iterator[str]:
    if not config.rope_interleave:
        yield "vLLM and SGLang rotate adjacent dimensions whatever rope_interleave says: they compute other positions."
    if config.rms_norm_eps != LATENT_NORM_EPS:
        yield (
            f"vLLM and SGLang normalise latents with rms_norm_eps ({config.rms_norm_eps:g}), the decoder with "
            f"{LATENT_NORM_EPS:g}: where latents are small, they compute others."
        )
    if not config.n_shared_experts:
        yield "vLLM and SGLang cannot load a model without shared experts whose n_shared_experts is 0."
    if config.num_nextn_predict_layers > 1:
        yield "SGLang drafts with one prediction module alone; vLLM takes all."
    yarn = config.rope_scaling
    if yarn is not None and (not yarn.truncate or yarn.attention_factor is not None):
        yield "vLLM and SGLang know neither truncate nor attention_factor of YaRN: they compute other positions."
    if in_fp8 and (widths := _uneven_widths(config)):
        yield f"vLLM joins FP8 projections only where {' and '.join(widths)} are multiples of {BLOCK}; give it BF16."


def _uneven_widths(config: DecoderConfig) -> list[str]:
    """Heights of matrices that are joined with others below them, and end within a block."""
    joined = ["q_lora_rank"] * (config.q_lora_rank is not None)
    joined += ["intermediate_size"] * (config.first_k_dense_replace > 0)
    joined += ["moe_intermediate_size"] * (config.first_k_dense_replace < config.num_hidden_layers)
    return [name for name in joined if getattr(config, name) % BLOCK]
