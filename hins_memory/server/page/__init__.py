"""The page to look at: what serves, how well, what is recorded, and, with a key, a swap or a way back."""
