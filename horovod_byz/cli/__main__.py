"""`python -m horovod_byz.cli`."""

from horovod_byz.cli.main import main

if __name__ == "__main__":
    main()
