"""`python -m horovod_byz.bench`."""

import sys

from horovod_byz.bench.run import main

sys.exit(main())
