"""Spark jobs behind the profile views: ``python -m feature_repo.aggregates --cut T``."""
