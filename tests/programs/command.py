"""`horovod-byz`, as a program that the tests' `python` can start."""

from horovod_byz.cli.main import main

main()
