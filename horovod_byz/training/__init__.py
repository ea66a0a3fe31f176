"""Training with simulated Byzantine workers: configuration, data, models, the loop, run folders."""

from horovod_byz.common.extras import require

require("train", "pydantic", "tomli_w")
