"""PSNR of real pictures through the VAE."""

import json

import cv2
import numpy as np
import pytest
import torch

from dpdy_core.prior import score
from dpdy_core.prior.autoencoder import autoencoder_psnr
from dpdy_core.prior.score import read_squares, score_images, with_ramp


def write(folder, name, height, width, left):
    """A picture that is red but for `left` blue columns."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 255
    image[:, :left] = (255, 0, 0)
    cv2.imwrite(str(folder / name), image)


def test_squares_come_from_the_middle_in_natural_order(tmp_path):
    write(tmp_path, "10.png", 32, 64, 16)  # the square begins where red begins
    write(tmp_path, "9.png", 64, 32, 16)  # tall: half blue
    (tmp_path / "notes.txt").write_text("no picture")
    squares = read_squares(tmp_path, 16)
    assert squares.shape == (2, 3, 16, 16)
    red, blue = torch.tensor([1.0, 0, 0])[:, None, None], torch.tensor([0, 0, 1.0])[:, None, None]
    assert torch.equal(squares[0, :, :, :8], blue.expand(3, 16, 8))
    assert torch.equal(squares[0, :, :, 8:], red.expand(3, 16, 8))
    assert torch.equal(squares[1], red.expand(3, 16, 16))


def test_ramp_is_far_above_and_near_below():
    packed = with_ramp(torch.full((2, 3, 5, 4), 0.75))
    assert torch.equal(packed[:, :3], torch.full((2, 3, 5, 4), 0.5))
    assert packed[1, 3, :, 2].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_score_is_the_mean_over_all_pictures(toy, monkeypatch):
    rgb = torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    single = [autoencoder_psnr(toy.vae, with_ramp(image[None])) for image in rgb]
    monkeypatch.setattr(score, "BATCH", 2)
    found = score_images(toy, rgb)
    assert found["psnr_rgb_ramp"] == pytest.approx(np.mean([s["psnr_rgb"] for s in single]), abs=0.02)
    assert found["psnr_rgb_flat_depth"] == pytest.approx(np.mean([s["psnr_rgb_flat_depth"] for s in single]), abs=0.02)


def test_command_prints_the_score_or_says_what_is_missing(tmp_path, toy_folder, capsys):
    arguments = ["--model", str(toy_folder), "--images", str(tmp_path), "--device", "cpu"]
    assert score.main(arguments) != 0
    assert "holds no images" in capsys.readouterr().err
    write(tmp_path, "a.png", 40, 40, 7)
    assert score.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["images"], printed["size"]) == (1, 32)
    assert printed["psnr_rgb_ramp"] > 0
