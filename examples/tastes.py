"""Choices of users whose tastes, and the items' popularity, are planted: how good can lists be?

A user chooses an item with a probability that grows with the item's popularity and with how well it
fits the user's taste, a point in a space of a few dimensions. Nothing but the choices is told, and
a group of users with about the same first two numbers of their taste.

Legend: U users, I items, D dimensions of taste.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

USERS, ITEMS, CHOICES = 2000, 500, 60
DIMENSIONS, STRENGTH = 4, 1.5
GROUPS = np.array([["north-west", "north-east"], ["south-west", "south-east"]], object)


class Planted(NamedTuple):
    """Choices as a table, and the logarithm of their chances without a constant (U, I).

    Users are called u0, u1, …, items i0, i1, …
    """

    frame: pd.DataFrame
    logit_UI: np.ndarray


def planted(
    users: int = USERS, items: int = ITEMS, choices: int = CHOICES, *, seed: int = 0
) -> Planted:
    """Draw choices, on average so many of each user, none twice."""
    random = np.random.default_rng(seed)
    taste_UD = random.normal(size=(users, DIMENSIONS))
    kind_ID = random.normal(size=(items, DIMENSIONS))
    popularity_I = random.normal(size=items)
    logit_UI = popularity_I + STRENGTH * taste_UD @ kind_ID.T / np.sqrt(DIMENSIONS)
    # Plackett and Luce: the order of logits plus Gumbel noise draws without replacement
    order_UI = np.argsort(-(logit_UI + random.gumbel(size=logit_UI.shape)), axis=1)
    count_U = np.clip(random.poisson(choices, users), 3, items // 3)
    user = np.repeat(np.arange(users), count_U)
    item = np.concatenate([order[:count] for order, count in zip(order_UI, count_U, strict=True)])
    group_U = GROUPS[(taste_UD[:, 1] > 0).astype(int), (taste_UD[:, 0] > 0).astype(int)]
    frame = pd.DataFrame({"user": user, "group": group_U[user], "item": item})
    frame["user"], frame["item"] = "u" + frame["user"].astype(str), "i" + frame["item"].astype(str)
    shuffled = frame.sample(frac=1.0, random_state=seed, ignore_index=True)
    return Planted(shuffled, logit_UI)


def choices() -> pd.DataFrame:
    """What the experiment file reads."""
    return planted().frame
