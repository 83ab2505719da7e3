"""Evaluate aggregation expressions. Pure."""

from mydocs.localserver.query.expressions.compiler import compile_expression
from mydocs.localserver.query.expressions.core import truthy

__all__ = ["compile_expression", "truthy"]
