"""The `query` mode: a map of the queries is trained; the encoder and the vectors of the documents stay as they are."""
