"""DpDy: dynamic view synthesis from one video, with an RGB-D diffusion prior."""

__version__ = "0.1.0"
