"""Shared helpers: checks of parameters, names with options, remedies. Imports no other room."""
