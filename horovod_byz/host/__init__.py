"""This machine: versions, cores, memory, the files of this installation, and `horovod-byz doctor`."""
