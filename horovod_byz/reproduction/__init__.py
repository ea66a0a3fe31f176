"""The papers' tables and figures: grids of runs, artefacts, claims, pictures."""

from horovod_byz.common.extras import require

require("reproduce", "pydantic", "tomli_w", "matplotlib")
