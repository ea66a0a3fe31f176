"""What every room uses: checks of parameters, names with options, remedies. Imports nothing of ours."""
