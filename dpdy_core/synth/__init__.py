"""Procedural moving RGB-D scenes: captures with ground truth, and training data of the bundled prior."""
