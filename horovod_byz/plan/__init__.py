"""What a step costs before it runs: bytes, memory and time of each way to collect; `horovod-byz plan`.

Bytes and memory follow from the code of `horovod_byz.collect`, exactly. Times come from constants that
`horovod_byz.bench.calibrate` fits to the committed measurements; each estimate carries their error.
"""
