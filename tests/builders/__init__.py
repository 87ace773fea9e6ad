"""Tiny models, synthetic data and slow references that several tests share."""
