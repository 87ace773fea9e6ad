"""YAML to a checked, frozen study: its model, benchmarks, ablations and arms."""
