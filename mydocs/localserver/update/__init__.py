"""Update documents. Pure."""
