"""The paper's ablations on a capture, as a table."""
