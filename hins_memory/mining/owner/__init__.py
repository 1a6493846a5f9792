"""One owner's memories as the miner sees them: texts, vectors, topics."""
