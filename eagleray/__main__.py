"""`python -m eagleray`."""

import sys

from eagleray import cli

sys.exit(cli.main())
