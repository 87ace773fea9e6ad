"""Training of Pocket-LLaVA from scratch; running the model needs none of this."""
