import math

import pytest
import torch

from edgeprune.training.augmentation import Augmentation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_what_fits_the_data() -> None:
    for shape in ((10,), (784,), (1, 8, 8), (3, 15, 40)):
        assert Augmentation.fit(shape, mirrors=True) is None
    grey, colour = Augmentation.fit((1, 28, 28), mirrors=False), Augmentation.fit((3, 32, 32), mirrors=True)
    assert grey is not None
    assert colour is not None
    assert grey.rotation > 0
    assert not grey.mirror
    assert colour.mirror
    assert colour.rotation == 0


def test_nothing_asked_for_is_nothing_changed() -> None:
    x = torch.randn(7, 2, 20, 16)
    torch.testing.assert_close(Augmentation().apply(x, generator(), 3), x, rtol=0, atol=1e-4)


def test_shifts_are_whole_pixels_and_continue_the_border() -> None:
    x = torch.arange(16.0).expand(200, 1, 24, 16).contiguous() + 100 * torch.arange(24.0)[:, None]
    moved = Augmentation(shift=1 / 8).apply(x, generator(), 200)
    seen = set()
    for image in moved:
        down, right = divmod(round(float(image[0, 12, 8])), 100)
        down, right = 12 - down, 8 - right
        seen.add((down, right))
        rows = (torch.arange(24) - down).clamp(0, 23)
        columns = (torch.arange(16) - right).clamp(0, 15)
        torch.testing.assert_close(image[0], x[0, 0][rows][:, columns], rtol=0, atol=0.05)
    assert {down for down, _ in seen} == set(range(-3, 4))
    assert {right for _, right in seen} == set(range(-2, 3))


def test_a_share_of_the_images_is_moved() -> None:
    x = torch.randn(1, 1, 20, 20).expand(600, 1, 20, 20)
    changed = Augmentation(shift=0.1, moved=0.5).apply(x, generator(), 600)
    stayed = (changed - x).abs().flatten(1).amax(1) < 1e-3
    # Half of them, and those of the others that were moved by nothing: one of 25.
    assert 270 < int(stayed.sum()) < 355
    clothes = Augmentation.fit((1, 28, 28), mirrors=True)
    assert clothes is not None
    assert (clothes.mirror, clothes.moved) == (True, 0.5)


def test_half_of_the_images_are_mirrored_where_asked() -> None:
    ramp = torch.arange(16.0).expand(200, 3, 16, 16)
    mirrored = Augmentation(mirror=True).apply(ramp, generator(), 200)
    flipped = mirrored[:, 0, 0, 0] > 7
    torch.testing.assert_close(mirrored[flipped], ramp[flipped].flip(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(mirrored[~flipped], ramp[~flipped], rtol=0, atol=1e-4)
    assert 70 < int(flipped.sum()) < 130
    assert (Augmentation(shift=0.1, rotation=10, scale=0.1).apply(ramp, generator())[..., 15] > 7).all()


@pytest.mark.parametrize(("height", "width"), [(33, 33), (25, 49)])
def test_turning_keeps_the_distance_to_the_middle_and_stays_in_bounds(height: int, width: int) -> None:
    """A dot 10 pixels right of the middle lands on the circle around it, also where images are not square."""
    dot = torch.zeros(100, 1, height, width)
    middle = (height // 2, width // 2)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    dot[:] = torch.exp(-((rows - middle[0]) ** 2 + (columns - middle[1] - 10) ** 2) / 4.0)
    turned = Augmentation(rotation=30).apply(dot, generator(), 100)[:, 0]
    mass = turned.sum((1, 2))
    down = (turned * rows).sum((1, 2)) / mass - middle[0]
    right = (turned * columns).sum((1, 2)) / mass - middle[1]
    torch.testing.assert_close(torch.hypot(down, right), torch.full((100,), 10.0), rtol=0, atol=0.15)
    degrees = torch.atan2(down, right) * 180 / math.pi
    assert float(degrees.abs().max()) <= 30.5
    assert float(degrees.min()) < -20
    assert float(degrees.max()) > 20


def test_scaling_moves_what_is_outside_the_middle_by_its_share() -> None:
    ramp = (torch.arange(33.0) - 16).expand(100, 1, 33, 33)
    scaled = Augmentation(scale=0.2).apply(ramp, generator(), 100)[:, 0, 16, 26] / 10
    assert float((1 / scaled).min()) >= 0.8 - 1e-4
    assert float((1 / scaled).max()) <= 1.2 + 1e-4
    assert float(scaled.std()) > 0.05


def test_values_stay_between_the_given_ones() -> None:
    x = torch.randn(50, 1, 28, 28)
    changed = Augmentation(shift=0.2, rotation=40, scale=0.3, mirror=True).apply(x, generator())
    assert changed.shape == x.shape
    assert float(changed.min()) >= float(x.min()) - 1e-4
    assert float(changed.max()) <= float(x.max()) + 1e-4


def test_one_seed_one_change_and_images_far_apart_share_it() -> None:
    augmentation = Augmentation.fit((1, 28, 28), mirrors=False)
    assert augmentation is not None
    x = torch.randn(4, 1, 28, 28).repeat(5, 1, 1, 1)[:18]
    one, two = augmentation.apply(x, generator(), 4), augmentation.apply(x, generator(), 4)
    assert torch.equal(one, two)
    # Images 0, 4, 8 ... are equal here and change alike; consecutive ones do not change alike.
    torch.testing.assert_close(one[4:8], one[:4])
    torch.testing.assert_close(one[16:], one[:2])
    same = augmentation.apply(x[:1].expand(4, 1, 28, 28), generator(), 4)
    assert not torch.allclose(same[0], same[1], atol=0.1)


def test_images_do_not_leak_into_each_other() -> None:
    """Images that share a change are sampled as channels of one: each must still be its own."""
    augmentation = Augmentation(shift=0.1, rotation=20)
    x = torch.randn(6, 2, 16, 16)
    together = augmentation.apply(x, generator(), 2)
    for index in (1, 3, 5):
        alone = x.clone()
        alone[[i for i in range(6) if i != index]] = 0
        torch.testing.assert_close(augmentation.apply(alone, generator(), 2)[index], together[index])
