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


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        (141_812.4, ".3g", "142,000"),
        (296_043.9, ".4g", "296,000"),
        (-7_099.58, "+.4g", "-7,100"),
        (0.85236, ".4g", "0.8524"),
        (0.5, ".3g", "0.5"),
        (999.96, ".4g", "1,000"),
        (0.000852, "+.3g", "+0.000852"),
        (0.0000123, ".3g", "1.23e-05"),
        (0.0, ".3g", "0"),
        (1e20, ".3g", "1e+20"),
        (12.5, ".4f", "12.5000"),
    ],
)
def test_numbers_of_usual_size_have_no_exponent(value: float, form: str, said: str) -> None:
    assert messages.number(value, form) == said
