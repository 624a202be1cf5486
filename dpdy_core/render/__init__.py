"""Volume rendering of the scene: samples along rays, compositing, whole images, visibility."""
