"""Images to results on a GPU: only labels come back."""
