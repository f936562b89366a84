"""What only a GPU shows; without one, each test is skipped and says why (`make gpu`)."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU on this machine")
