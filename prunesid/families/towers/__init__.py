"""Vision towers: what they leave for methods, and passes that methods change."""
