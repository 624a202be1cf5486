"""The stages of a run, in their order. A module of its own: who only looks into a run folder loads no pydantic."""

STAGES = ("ingest", "masks", "cameras", "depth", "prior", "scene", "render", "evaluate")
TRUNK = "trunk"  # the scene's first part, up to the step at which the prior begins: no stage, but recorded like one
