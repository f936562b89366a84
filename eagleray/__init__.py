"""What training and serving share: experiment file, storage, features, models, bundle, registry.

Nothing here works at import, and nothing here knows `ray_jobs`, `serving` or `k8s`; the command
line (`eagleray.cli`) alone does, inside its commands.
"""

__version__ = "0.1.0"
