"""Tables and figures from comparison tables, in one style. Nothing here computes a statistic."""
