"""`python -m horovod_byz.bench`; a rank of the step benchmark where it begins with "step-rank"."""

import sys

from horovod_byz.bench import step_rank
from horovod_byz.bench.run import main

if sys.argv[1:2] == ["step-rank"]:
    step_rank.main(sys.argv[2:])
else:
    sys.exit(main())
