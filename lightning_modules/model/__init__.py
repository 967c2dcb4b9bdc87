"""The DeepSeek-V3 decoder in pure torch: latent attention, mixture of experts, multi-token prediction."""
