"""Images to results on the CPU."""
