"""What everything else stands on: records of vision features, costs, numerics, seeds, registries."""
