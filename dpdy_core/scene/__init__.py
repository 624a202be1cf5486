"""The 4D scene: hash grids, the static and the dynamic field, the space they live in."""
