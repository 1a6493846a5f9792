"""Examples on disk: resumable state of a run, and Parquet."""
