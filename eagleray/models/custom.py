"""`module:function`: the user's own architecture."""

from __future__ import annotations

from torch import nn

from eagleray import code, errors, features, spec


def build(own: code.Code, options: spec.Custom, shape: features.Shape, outputs: int) -> nn.Module:
    """Call the user's function with `shape`, `outputs` and the further keys of `model`.

    Raises:
        CodeError: the function raises, or gives something else than a `torch.nn.Module`.
    """
    parameters = {key: value for key, value in options.model_dump().items() if key != "type"}
    try:
        model = own.load()(shape=shape, outputs=outputs, **parameters)
    except errors.EagleRayError:
        raise
    except Exception as cause:  # whatever the user's code raises is the user's to know
        raise errors.CodeError(f"{own.name} must build a model, but raised {cause!r}") from cause
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise errors.CodeError(f"{own.name} must give a torch.nn.Module, but gave {kind}")
    return model
