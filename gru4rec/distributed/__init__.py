"""Training a model on several processes and machines, each with a part of it, to the numbers of a single process."""
