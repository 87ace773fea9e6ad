"""Needs and costs of a study, before it runs and while it does."""
