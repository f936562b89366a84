"""A package that adds members to EagleRay's seams, as an installed one would.

`tests.integration.test_plugin` puts it on the path beside an entry point that names this module.
"""

from tests.plugin import counts, durations, wide

counts.register()
durations.register()
wide.register()
