"""Sizes of images. Torch-free, and without OpenCV: forecasts and the command line use it."""


def fitted_size(width: int, height: int, max_size: int) -> tuple[int, int]:
    """Width and height scaled down, never up, so that the longer side is at most `max_size`."""
    scale = min(1.0, max_size / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
