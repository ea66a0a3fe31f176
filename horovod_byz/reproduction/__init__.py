"""The papers' tables and figures: grids of runs, artefacts, claims, pictures."""
