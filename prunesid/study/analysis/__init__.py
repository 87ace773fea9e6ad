"""Scores to comparisons: metrics, paired tests, intervals, strata."""
