"""The `horovod-byz` command."""
