"""Runs a rule over the gradient matrix: rows > statistics > decision > aggregate. Never imports Horovod."""
