"""python -m accel_cli"""

import sys

from accel_cli.cli.main import main

sys.exit(main())
