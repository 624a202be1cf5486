"""Stages ingest, masks, cameras, depth: a user's capture becomes the canonical capture of the run folder."""
