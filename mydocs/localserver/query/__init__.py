"""The language of filters, projections and expressions. Pure."""
