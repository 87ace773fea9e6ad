"""From kept tokens to answers: the greedy answers of an arm, and pruned calls of any model."""
