"""Training of DeepSeek-V3-style language models with torch and Lightning alone."""
