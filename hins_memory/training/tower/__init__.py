"""The `tower` mode: an encoder for queries alone, trained against stored vectors that stay as they are."""
