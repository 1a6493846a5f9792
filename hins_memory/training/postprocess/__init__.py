"""What happens to trained weights: interpolation, score calibration, the query map."""
