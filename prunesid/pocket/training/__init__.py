"""Training Pocket-LLaVA from nothing; running it needs none of this."""
