"""From files and frames to sessions, batches and negatives."""
