"""The base of all other packages: vision records, costs, numerics, seeds and registries."""
