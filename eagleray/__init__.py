"""One experiment file to one autoscaled endpoint, from Python.

    experiment = eagleray.load("churn.yaml")
    result = experiment.run()
    model = eagleray.models()["churn"]
    model.predict(frame)
    with eagleray.serve("churn") as endpoint: ...
    eagleray.Client("http://churn.example.com").predict(frame)

The names below are the public API (docs/python.md), each imported on first use.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from eagleray.api.audits import Audit as Audit
    from eagleray.api.checks import Check as Check
    from eagleray.api.endpoints import Endpoint as Endpoint
    from eagleray.api.endpoints import serve as serve
    from eagleray.api.experiments import Experiment as Experiment
    from eagleray.api.experiments import load as load
    from eagleray.api.models import Model as Model
    from eagleray.api.models import Models as Models
    from eagleray.api.models import models as models
    from eagleray.api.remote import Client as Client
    from eagleray.api.remote import Label as Label
    from eagleray.api.reports import Report as Report
    from eagleray.api.reports import compare as compare
    from eagleray.api.reports import report as report
    from eagleray.api.results import Result as Result

_EXPORTS = {
    "audits": ("Audit",),
    "checks": ("Check",),
    "endpoints": ("Endpoint", "serve"),
    "experiments": ("Experiment", "load"),
    "models": ("Model", "Models", "models"),
    "remote": ("Client", "Label"),
    "reports": ("Report", "compare", "report"),
    "results": ("Result",),
}
__all__ = [name for names in _EXPORTS.values() for name in names]


def __getattr__(name: str) -> object:
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(importlib.import_module(f"eagleray.api.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
