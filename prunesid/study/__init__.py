"""The study: from YAML to arms, and from stored scores to a paired comparison of those arms."""
