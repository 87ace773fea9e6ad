"""Images, clips and prompts on their way into a model, for several families."""
