"""``python -m grokfast.cli``."""

import sys

from grokfast.cli import main

sys.exit(main())
