import numpy as np
import pytest

from dpdy_core.ingest.name_times import times_of_names

ORDER = [0, 1 / 3, 2 / 3, 1]


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (["f_1.png", "f_2.png", "f_3.png", "f_5.png"], [0, 0.25, 0.5, 1]),  # one that did not register
        (["00009.jpg", "00010.jpg", "00011.jpg", "00017.jpg"], [0, 1 / 8, 2 / 8, 1]),
        (["1305031102.175.png", "1305031102.275.png", "1305031102.375.png", "1305031103.175.png"], [0, 0.1, 0.2, 1]),
        (["1403636579763555584.png", "1403636579813555456.png", "1403636579863555584.png"], [0, 0.49999936, 1]),
        (["a/f1.png", "a/f3.png", "b/f1.png", "b/f3.png"], [0, 1, 0, 1]),  # two cameras that ran together
        (["dawn.png", "dusk.png", "night.png", "noon.png"], ORDER),
        (["IMG_1.jpg", "IMG_2.jpg", "DSC_3.jpg", "IMG_4.jpg"], [1 / 3, 2 / 3, 0, 1]),  # more than a number differs
        (["f1.png", "f01.png", "f2.png", "f3.png"], None),  # the same number twice: order, whatever it is
        (["a/f1.png", "b/f1.png", "c/f1.png", "d/f1.png"], ORDER),
    ],
)
def test_times(names: list[str], times: list[float] | None) -> None:
    found = times_of_names(names)
    if times is None:
        assert sorted(found) == pytest.approx(ORDER)
    else:
        assert np.allclose(found, times, atol=1e-8)


def test_the_order_given_does_not_matter() -> None:
    assert times_of_names(["f9.png", "f10.png", "f1.png"]).tolist() == pytest.approx([8 / 9, 1, 0])
