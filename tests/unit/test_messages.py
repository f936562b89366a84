"""Parts of messages."""

import pytest

from eagleray import messages


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (1.0, "100 %"),
        (0.996325, "99.63 %"),
        (0.99995, "99.9950 %"),
        (0.412, "41 %"),
        (0.0037, "0.37 %"),
        (0.0, "0 %"),
    ],
)
def test_a_share_that_is_not_all_is_not_said_to_be(share: float, said: str) -> None:
    assert messages.percent(share) == said
