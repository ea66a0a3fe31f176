"""Makes `import torchvision` work in every program of an environment whose torch its library does not fit.

Copies `horovod_byz/host/torchvision_hook.py` beside the packages of the Python that runs this, with a `.pth`
file that Python reads whenever it starts. `make setup` does so; the copied file says what is wrong.
"""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "horovod_byz" / "host" / "torchvision_hook.py"
MODULE = "_horovod_byz_torchvision"


def main() -> None:
    """Installs the hook, or replaces an older one."""
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(SOURCE, packages / f"{MODULE}.py")
    (packages / "horovod_byz_torchvision.pth").write_text(f"import {MODULE}; {MODULE}.install()\n")


if __name__ == "__main__":
    main()
