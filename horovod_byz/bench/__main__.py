"""`python -m horovod_byz.bench`; by its first word a rank of the step benchmark, or `calibrate`."""

import sys

from horovod_byz.bench import calibrate, step_rank
from horovod_byz.bench.run import main

if sys.argv[1:2] == ["step-rank"]:
    step_rank.main(sys.argv[2:])
elif sys.argv[1:2] == ["calibrate"]:
    sys.exit(calibrate.main(sys.argv[2:]))
else:
    sys.exit(main())
