"""What happens to trained weights: averaging with the base, the limit on forgetting, score calibration."""
