"""The files that stages hand on to one another."""
