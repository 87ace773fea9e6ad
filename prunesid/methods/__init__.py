"""The pruning methods, one file each: on features, in the vision encoder, in the language model."""
