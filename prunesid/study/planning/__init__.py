"""What a study needs and takes, before it runs and while it does."""
