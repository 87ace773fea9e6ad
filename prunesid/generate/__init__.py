"""Kept tokens into language models: answers, and one pruned call of a model of your own."""
