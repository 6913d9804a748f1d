"""python -m hotrow"""

import sys

from hotrow.cli import main

sys.exit(main())
