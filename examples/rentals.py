"""Rentals of bicycles for rentals.yaml: a row for each day of four years, made with planted rules.

Demand follows the warmth, the day of the week and holidays, and grows from year to year; a new
bridge in the third year changes how much rain counts. Time that goes on so is what a split by
chance hides.
"""

import numpy as np
import pandas as pd

DAYS = 4 * 365
BRIDGE = 800  # from this day on people ride through the rain more often
NOISE = 25.0  # rentals of a day


def rentals() -> pd.DataFrame:
    """The day, its weather, whether it was a holiday, the rentals a week before, and those of it.

    Temperatures are in °C, rain in mm.
    """
    random = np.random.default_rng(0)
    days = np.arange(DAYS + 7)
    date = pd.date_range("2021-01-01", periods=len(days), freq="D")
    year = np.sin(2 * np.pi * (days - 105) / 365.25)
    temperature = 11 + 10 * year + random.normal(0, 3.5, len(days))
    rain = np.where(random.random(len(days)) < 0.35, random.gamma(1.2, 4, len(days)), 0.0)
    holiday, weekend = random.random(len(days)) < 0.03, date.day_of_week >= 5
    mean = 300 + 12 * np.clip(temperature, -5, 26) + 0.15 * days - 70 * (weekend | holiday)
    mean = mean - np.where(days < BRIDGE, 9, 5) * np.minimum(rain, 20)
    count = np.round(np.maximum(mean + random.normal(0, NOISE, len(days)), 0))
    frame = pd.DataFrame(
        {
            "day": date.strftime("%Y-%m-%d"),
            "temperature": temperature.round(1),
            "rain": rain.round(1),
            "holiday": np.where(holiday, "yes", "no"),
            "week_before": np.roll(count, 7),
            "rentals": count,
        }
    )
    return frame.iloc[7:].reset_index(drop=True)
