"""Run pipelines and their stages."""
