"""The adversary as a tool: which attack, at which strength, moves a rule farthest from the honest mean.

| module | contents |
| --- | --- |
| `honest` | the honest rows: drawn, or the caller's own; their mean and deviation |
| `families` | what is tried: the registered attacks, and the strengths of those that have one |
| `search` | tries them on a rule, beside the theorem's bound |
"""

from horovod_byz.adversary.honest import Honest
from horovod_byz.adversary.search import Report, Tried, search

__all__ = ["Honest", "Report", "Tried", "search"]
