"""Pure geometry on tensors: no files, no config."""
