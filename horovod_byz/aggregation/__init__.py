"""Rows > statistics > decision > aggregate: runs a rule over the gradient matrix. Knows no Horovod."""
