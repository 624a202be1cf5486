"""High dynamic range to standard: PQ and HLG pictures as an SDR display would show them. Torch-free.

BT.2100 gives the light, the EETF of BT.2390 (5.4.1) brings it under the white of SDR, BT.2087 changes the primaries and
BT.1886 gives the code values.
"""

from functools import cache

import numpy as np

PQ, HLG = 16, 18  # ITU-T H.273, transfer characteristics
_WIDE_PRIMARIES = 9  # BT.2020
_SDR_WHITE, _PEAK = 203.0, 1000.0  # cd/m^2: BT.2408; BT.2100 for HLG, and usual for PQ

_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


def to_sdr(coded: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """(H, W, 3) uint8 SDR from (H, W, 3) uint16 full-range R'G'B' of `transfer` PQ or HLG."""
    light = _light(transfer)[coded]
    if transfer == HLG:  # system gamma 1.2 on the luminance (BT.2100 table 5)
        light = _PEAK * light * np.maximum(light @ _LUMINANCE, 1e-6)[:, :, None] ** 0.2
    nits, gain = _gains()
    shown = light * np.interp(light.max(axis=2), nits, gain).astype(np.float32)[:, :, None]
    if primaries == _WIDE_PRIMARIES:
        shown = shown @ _TO_BT709.T
    codes: np.ndarray = np.rint(255 * shown.clip(0, 1) ** (1 / 2.4)).astype(np.uint8)
    return codes


@cache
def _light(transfer: int) -> np.ndarray:
    """(65536,) float32: cd/m^2 of a PQ code (EOTF, BT.2100 table 4), scene light in [0, 1] of an HLG code (table 5)."""
    code = np.linspace(0, 1, 65536)
    if transfer == HLG:
        low, high = code**2 / 3, (np.exp((code - _C) / _A) + _B) / 12
        return np.where(code <= 0.5, low, high).astype(np.float32)
    return pq_to_nits(code).astype(np.float32)


def pq_to_nits(code: np.ndarray) -> np.ndarray:
    """cd/m^2 of PQ codes in [0, 1]."""
    root = code ** (1 / _M2)
    return 10000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """PQ codes in [0, 1] of cd/m^2."""
    power = (nits / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


@cache
def _gains() -> tuple[np.ndarray, np.ndarray]:
    """(nits, gain): what light of a pixel's brightest channel is multiplied with, to [0, 1] of SDR white."""
    peak, white = nits_to_pq(np.array([_PEAK, _SDR_WHITE]))
    code = np.linspace(1e-3, 1, 4096) * peak
    share, limit = code / peak, white / peak
    knee = 1.5 * limit - 0.5
    t = (share - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * limit
    nits = pq_to_nits(code)
    return nits, pq_to_nits(np.where(share < knee, share, spline) * peak) / nits / _SDR_WHITE
