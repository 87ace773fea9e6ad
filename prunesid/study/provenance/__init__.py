"""Code, configuration and content that a result depends on, and the store keyed by them."""
