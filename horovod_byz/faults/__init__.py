"""Faults as hardware makes them, injected on purpose: a rehearsal of a run's failures.

| module | contents |
| --- | --- |
| `faults` | `Faults`, the script of a rehearsal: built by calls, or parsed from text |
| `base` | `Fault`: the steps at which it takes place; its text |
| `rows` | what a worker's broken hardware or software makes of the row that it sends |
| `silent` | flipped bits of a row's values, alone, in bursts, and as published |
| `ranks` | what befalls a rank: its process, its parameters, its role as aggregator or relay |
| `bits` | flips bits of floating-point numbers |
| `rehearsal` | carries the faults out in this process, at each step of an optimizer |
"""

from horovod_byz.faults.faults import Faults

__all__ = ["Faults"]
