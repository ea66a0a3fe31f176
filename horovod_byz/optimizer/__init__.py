"""The optimizer that wraps a Horovod script's own: flat rows, hooks, one collection a step."""
