"""Factors of a change of weights."""

import pytest
import torch

from hins_memory.encoders.low_rank import factorize


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (12, 64)])
def test_factors_are_exact_where_the_rank_is_and_close_to_the_best_elsewhere(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    low = torch.randn(shape[0], 16, generator=draw) @ torch.randn(16, shape[1], generator=draw)
    up, down = factorize(low, 16)
    assert up.shape == (shape[0], min(16, *shape))
    assert float((up @ down - low).norm()) < 1e-5 * float(low.norm())
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-3), "half precision holds both alike"
    # A change of full rank: most of it is of a low one.
    full = low / low.norm() + 0.1 * torch.randn(shape, generator=draw) / min(shape)
    up, down = factorize(full, 8)
    left, sizes, right = torch.linalg.svd(full, full_matrices=False)
    best = (left[:, :8] * sizes[:8]) @ right[:8]
    assert float((up @ down - full).norm()) < 1.02 * float((best - full).norm())
