"""The optimisation of the scene: terms of the objective, schedules, novel views, checkpoints, the loop."""
