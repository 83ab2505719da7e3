"""Evaluate filters, projections and expressions. Pure."""
