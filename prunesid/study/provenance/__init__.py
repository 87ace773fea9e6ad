"""What a result depends on: code, configuration and content, and the store that is keyed by them."""
