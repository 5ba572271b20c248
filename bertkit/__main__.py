"""``python -m bertkit`` does what the command ``bertkit`` does."""

import sys

from bertkit.cli import main

sys.exit(main())
